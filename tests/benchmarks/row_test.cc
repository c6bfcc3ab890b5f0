// Table and JSON line show the same numbers.
#include "benchmarks/row.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

namespace aurora::bench {
namespace {

TEST(Row, HasTheSameNumbersInTableAndJson) {
  Row row("s", "name");
  row.set("a", 0.00123)
      .set("b", 12.3456)
      .set("c", 123456.7)
      .set("d", std::int64_t{123456789012})
      .set("e", "text");
  const Stamp stamp{.commit = "c0ffee", .compiler = "", .build_type = "", .processor = "", .seed = 7};
  const auto json = nlohmann::json::parse(json_line(row, stamp));
  EXPECT_EQ(json.at("suite"), "s");
  EXPECT_EQ(json.at("stamp").at("commit"), "c0ffee");
  EXPECT_EQ(json.at("stamp").at("seed"), 7);
  std::istringstream lines(table({row}, stamp));
  std::string header;
  std::string values;
  std::getline(lines, header);
  std::getline(lines, values);
  std::istringstream columns(header);
  std::istringstream cells(values);
  std::string column;
  std::string cell;
  columns >> column;
  cells >> cell;
  EXPECT_EQ(cell, "name");
  for (int count = 0; count < 5; ++count) {
    ASSERT_TRUE(columns >> column && cells >> cell);
    if (column == "e") {
      EXPECT_EQ(json.at(column), cell);
    } else {
      EXPECT_EQ(json.at(column).get<double>(), std::stod(cell)) << column;
    }
  }
}

TEST(Row, ShowsADashWhereARowLacksAColumn) {
  Row full("s", "full");
  full.set("x", 1.5);
  const std::string text = table({full, Row("s", "lacking")}, {});
  EXPECT_NE(text.find("lacking      -\n"), std::string::npos) << text;
}

}  // namespace
}  // namespace aurora::bench

// What a benchmark says: rows of named columns, shown as a table to people and as JSON lines to programs,
// with the same numbers in both.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace aurora::bench {

/// Numbers are kept as they are shown: a real number is rounded to four significant digits when it is set.
using Cell = std::variant<std::int64_t, double, std::string>;

class Row {
 public:
  Row(std::string suite, std::string name) : suite_(std::move(suite)), name_(std::move(name)) {}

  Row& set(std::string column, std::int64_t value);
  Row& set(std::string column, double value);
  Row& set(std::string column, std::string value);

  const std::string& suite() const { return suite_; }
  const std::string& name() const { return name_; }
  const std::vector<std::pair<std::string, Cell>>& cells() const { return cells_; }
  /// Null when the row has no such column.
  const Cell* find(std::string_view column) const;

 private:
  std::string suite_;
  std::string name_;
  std::vector<std::pair<std::string, Cell>> cells_;
};

/// Where and of what the numbers are.
struct Stamp {
  std::string commit;
  std::string compiler;
  std::string build_type;
  std::string processor;
  double load = 0;  // processes that wanted to run, mean of the minute before
  std::uint64_t seed = 0;
};
Stamp stamp_now(std::uint64_t seed);

/// One JSON object with the row's columns, `suite`, `row` and `stamp`; ends with a line end.
std::string json_line(const Row& row, const Stamp& stamp);

/// All columns in the order in which they first appear; a row without a column has "-" there. The stamp
/// follows in a line of its own.
std::string table(const std::vector<Row>& rows, const Stamp& stamp);

}  // namespace aurora::bench

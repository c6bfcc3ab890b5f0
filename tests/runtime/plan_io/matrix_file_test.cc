// Traffic matrices as text: read back as written; mistakes are named with line, column and value.
#include "runtime/plan_io/matrix_file.h"

#include <gtest/gtest.h>

#include <random>

#include "kernels/error.h"

namespace aurora {
namespace {

std::string refusal(const std::string& text) {
  try {
    parse_matrix(text, "m.txt");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kFormat);
    return error.what();
  }
  return "nothing was thrown";
}

TEST(MatrixFile, ReadsRowsOfSendersAndDropsTheDiagonal) {
  const TrafficMatrix traffic = parse_matrix("# bytes\n 9\t1  2\r\n\n3 9 4 # row 1\n5 6 9", "m.txt");
  EXPECT_EQ(traffic, TrafficMatrix(3, std::vector<Bytes>{0, 1, 2, 3, 0, 4, 5, 6, 0}));
  EXPECT_EQ(traffic.at(0, 2), 2) << "row 0, column 2: from 0 to 2";
}

TEST(MatrixFile, ReadsBackWhatItWrote) {
  std::mt19937_64 random(6);
  for (int n = 1; n < 20; ++n) {
    TrafficMatrix traffic(n);
    for (int i = 0; i < n * n; ++i)
      traffic.set(i / n, i % n, static_cast<Bytes>(random() >> (10 + random() % 50)));
    EXPECT_EQ(parse_matrix(matrix_text(traffic), "m"), traffic);
  }
}

TEST(MatrixFile, NamesLineColumnAndValueOfMistakes) {
  const auto expect = [](const std::string& text, const std::string& part) {
    EXPECT_NE(refusal(text).find(part), std::string::npos) << refusal(text);
  };
  expect("1 2\n3", "m.txt: line 2: 1 numbers, but line 1 has 2");
  expect("1 2\n3 4\n5 6", "3 rows of 2 numbers");
  expect("1 -2\n3 4", "line 1: column 2: -2 is negative");
  expect("1 2\n3 x4", "line 2: column 2: \"x4\" is not a whole number");
  expect("1 2.5\n3 4", "\"2.5\" is not a whole number");
  expect("1 0x10\n3 4", "\"0x10\" is not a whole number");
  expect("1 99999999999999999999\n3 4", "does not fit into 64 bits");
  expect("0 4611686018427387904 4611686018427387904\n0 0 0\n0 0 0", "the sum of row 0 exceeds 2^62");
  expect("0 9223372036854775807\n0 0", "exceeds 2^62");
  expect("", "holds no numbers");
  expect("# nothing\n\n", "holds no numbers");
  EXPECT_THROW(read_matrix_file("/nonexistent/m.txt"), Error);
}

TEST(MatrixFile, SurvivesRandomMutations) {
  std::mt19937 random(8);
  for (int round = 0; round < 5000; ++round) {
    std::string text = "0 12 345\n6 0 789\n4611686018427387 1 0\n";
    for (unsigned change = 0; change <= random() % 4; ++change) {
      text[random() % text.size()] = "0123456789 \n\t-+.xe#\xff"[random() % 20];
    }
    if (round % 5 == 0) text.resize(random() % text.size());
    try {
      const TrafficMatrix traffic = parse_matrix(text, "mutated");
      EXPECT_EQ(parse_matrix(matrix_text(traffic), "again"), traffic);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kFormat) << error.what();
    }
  }
}

}  // namespace
}  // namespace aurora

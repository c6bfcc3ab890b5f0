#include "runtime/plan_io/nearest_name.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace aurora {
namespace {

TEST(NearestName, DistanceCountsTheFourEditsOnce) {
  EXPECT_EQ(edit_distance("path", "path"), 0);
  EXPECT_EQ(edit_distance("pth", "path"), 1);
  EXPECT_EQ(edit_distance("patth", "path"), 1);
  EXPECT_EQ(edit_distance("pazh", "path"), 1);
  EXPECT_EQ(edit_distance("apth", "path"), 1);
  EXPECT_EQ(edit_distance("", "path"), 4);
  EXPECT_EQ(edit_distance("path", ""), 4);
}

TEST(NearestName, CaseAndDashesDoNotCount) { EXPECT_EQ(edit_distance("KV-Cache-MB", "kv_cache_mb"), 0); }

/// The definition by recursion over the last characters, exponential and without tables.
int distance_by_recursion(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return static_cast<int>(a.size() + b.size());
  const std::string a1 = a.substr(0, a.size() - 1);
  const std::string b1 = b.substr(0, b.size() - 1);
  int best = std::min(distance_by_recursion(a1, b), distance_by_recursion(a, b1)) + 1;
  best = std::min(best, distance_by_recursion(a1, b1) + (a.back() == b.back() ? 0 : 1));
  if (a.size() > 1 && b.size() > 1 && a.back() == b1.back() && b.back() == a1.back()) {
    best =
        std::min(best, distance_by_recursion(a1.substr(0, a1.size() - 1), b1.substr(0, b1.size() - 1)) + 1);
  }
  return best;
}

TEST(NearestName, DistanceAgreesWithTheRecursiveDefinition) {
  constexpr unsigned kSeed = 5;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937 random(kSeed);
  const auto word = [&] {
    std::string text(random() % 6, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 3);
    return text;
  };
  for (int i = 0; i < 300; ++i) {
    const std::string a = word();
    const std::string b = word();
    EXPECT_EQ(edit_distance(a, b), distance_by_recursion(a, b)) << a << " " << b;
  }
}

TEST(NearestName, SuggestsANearNameAndListsAllWhenNoneIsNear) {
  const std::vector<std::string> known = {"dtype", "name", "path"};
  EXPECT_EQ(suggest_name("pahT", known), "; did you mean \"path\"?");
  EXPECT_EQ(suggest_name("temperature", known), "; known are dtype, name, path");
  EXPECT_EQ(suggest_name(std::string(100000, 'x'), known), "; known are dtype, name, path");
  EXPECT_EQ(suggest_name("anything", {}), "");
}

}  // namespace
}  // namespace aurora

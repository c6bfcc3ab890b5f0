#include "runtime/plan_io/nearest_name.h"

#include <algorithm>
#include <cctype>
#include <cstddef>

namespace aurora {
namespace {

char folded(char c) {
  if (c == '-') return '_';
  return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
}

}  // namespace

int edit_distance(std::string_view a, std::string_view b) {
  // rows[i % 3][j] is the distance between the first i bytes of a and the first j bytes of b.
  std::vector<std::vector<int>> rows(3, std::vector<int>(b.size() + 1));
  for (std::size_t j = 0; j <= b.size(); ++j) rows[0][j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::vector<int>& row = rows[i % 3];
    const std::vector<int>& above = rows[(i - 1) % 3];
    row[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const char x = folded(a[i - 1]);
      const char y = folded(b[j - 1]);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (x == y ? 0 : 1)});
      if (i > 1 && j > 1 && x == folded(b[j - 2]) && y == folded(a[i - 2])) {
        row[j] = std::min(row[j], rows[(i - 2) % 3][j - 2] + 1);
      }
    }
  }
  return rows[a.size() % 3][b.size()];
}

std::string suggest_name(std::string_view unknown, const std::vector<std::string>& known) {
  // An unknown name can be as long as an input line; the distance is quadratic, and nothing that long is
  // near.
  constexpr std::size_t kLongestCompared = 64;
  const std::string* nearest = nullptr;
  int nearest_distance = 0;
  if (unknown.size() <= kLongestCompared) {
    for (const std::string& name : known) {
      const int distance = edit_distance(unknown, name);
      const int limit = std::max(1, static_cast<int>(name.size()) / 3);
      if (distance <= limit && (nearest == nullptr || distance < nearest_distance)) {
        nearest = &name;
        nearest_distance = distance;
      }
    }
  }
  if (nearest != nullptr) return "; did you mean \"" + *nearest + "\"?";
  if (known.empty()) return "";
  std::string text = "; known are ";
  for (std::size_t i = 0; i < known.size(); ++i) text += (i == 0 ? "" : ", ") + known[i];
  return text;
}

}  // namespace aurora

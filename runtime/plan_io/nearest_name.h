// "Did you mean": the known name that an unknown one most likely stands for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace aurora {

/// Number of single-character insertions, deletions, replacements and swaps of neighbours between two names
/// (optimal string alignment), in bytes; upper and lower case, '-' and '_' count as equal. O(|a| |b|).
int edit_distance(std::string_view a, std::string_view b);

/// The end of a message about an unknown name: `; did you mean "path"?` when a known name is near (at most a
/// third of its characters differ), otherwise `; known are dtype, name, path`.
std::string suggest_name(std::string_view unknown, const std::vector<std::string>& known);

}  // namespace aurora

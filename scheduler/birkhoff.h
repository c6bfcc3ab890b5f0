// Matrices of constant line sums and their decomposition into perfect matchings (Birkhoff 1946; Koenig 1916),
// which is also the optimal schedule of pre-emptive open shop (Gonzalez and Sahni 1976). The exact order of
// an exchange is: pad the traffic until every row and column sums to the bound, then peel matchings off.
//
// Peeling uses a falling threshold: only entries of at least the threshold may be matched, rows are bit sets,
// what stays above the threshold stays matched, and when no perfect matching is left the threshold falls to
// the next level that has entries. Thresholds lie on a geometric grid, so that a fall looks only at the
// entries that it admits. Large entries thus meet large ones, which gives long rounds first and few of them:
// 6 n to 8 n on generic matrices of 40 to 1024 lines. Every round empties at least one entry, so there are at
// most n^2 - 2n + 2 rounds.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "scheduler/units.h"

namespace aurora {

/// What to add to `entries` (`size` x `size`, row-major, not negative) so that every row and column sums to
/// `line_sum`, which no line may exceed: spread over all entries in proportion to what row and column lack,
/// so that it empties together with the entries it is added to. O(n^2).
std::vector<Bytes> padding_to_line_sum(int size, std::span<const Bytes> entries, Bytes line_sum);

/// Visits the matchings of a decomposition of `entries`, all of whose rows and columns sum to `line_sum`:
/// `visit(length, column_of_row)` with lengths that sum to `line_sum`. `visit` returns false to stop early.
/// Deterministic. Throws std::invalid_argument when `size` is above 65535.
using MatchingVisitor = std::function<bool(Bytes length, std::span<const int> column_of_row)>;
void peel_perfect_matchings(int size, std::vector<Bytes> entries, const MatchingVisitor& visit);

}  // namespace aurora

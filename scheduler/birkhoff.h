// Decomposition of matrices, padded to constant line sums, into perfect matchings (Birkhoff 1946; Koenig
// 1916), which is also the optimal schedule of pre-emptive open shop (Gonzalez and Sahni 1976). The exact
// order of an exchange is: pad the traffic until every row and column sums to the bound, then peel matchings
// off.
//
// Peeling uses a falling threshold: only entries of at least the threshold may be matched, rows are bit sets,
// what stays above the threshold stays matched, and when no perfect matching is left the threshold falls to
// the next level that has entries. Thresholds lie on a geometric grid, so that a fall looks only at the
// entries that it admits. Large entries thus meet large ones, which gives long rounds first and few of them.
//
// Padding is spread over all entries at first. When few of the real entries are left, mostly those of the
// busiest line, its many small remainders would only cost rounds: what is left is padded anew, in as few
// entries as can be, and its matchings are peeled with entries staying matched until they are empty. That
// takes at most one round more than there are real entries left.
//
// Generic traffic takes 2 n to 5 n rounds at 8 to 1024 lines, balanced traffic, which has no padding, 4 n to
// 7 n. Every round empties at least one entry, so there are at most n^2 - 2n + 2 rounds.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "scheduler/units.h"

namespace aurora {

/// What one round carries of an entry.
struct Piece {
  int row;
  int column;
  Bytes amount;  // above zero
  Bytes left;    // after this round
};

/// Visits the rounds of `entries` (`size` x `size`, row-major, not negative): pieces in the order of their
/// rows, nothing twice of a row or column. `visit` returns false to stop early. The longest pieces of the
/// rounds sum to the largest line of `entries`. Deterministic. Throws std::invalid_argument when `size` is
/// above 65535.
enum class RoundSequence {
  kLongestFirst,  // roughly: for those who stop early or weigh the first rounds
  kAny,           // all rounds are wanted: the quickest to plan
};
using PieceVisitor = std::function<bool(std::span<const Piece> pieces)>;
void peel_rounds(int size, std::vector<Bytes> entries, RoundSequence sequence, const PieceVisitor& visit);

}  // namespace aurora

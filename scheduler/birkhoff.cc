#include "scheduler/birkhoff.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace aurora {
namespace {

__extension__ using WideInteger = __int128;

/// The threshold falls at least to this fraction, so that a failed search is not repeated for every entry. A
/// larger fraction gives fewer rounds and more searches; rows of up to 64 entries can afford more.
constexpr int kFallNumerator = 7;
constexpr int kFallDenominator = 8;

class MatchingPeeler {
 public:
  MatchingPeeler(int size, std::vector<Bytes> entries)
      : size_(static_cast<std::size_t>(size)),
        words_((size_ + 63) / 64),
        entries_(std::move(entries)),
        bits_(size_ * words_),
        column_of_row_(size_, kNone),
        row_of_column_(size_, kNone),
        free_columns_(words_),
        unseen_columns_(words_),
        parent_row_(size_) {
    for (std::size_t column = 0; column < size_; ++column) set_bit(free_columns_, column);
    queue_.reserve(size_);
  }

  void peel(Bytes line_sum, const MatchingVisitor& visit) {
    threshold_ = largest_useful_threshold();
    rebuild_bits();
    while (line_sum > 0) {
      complete_matching();
      const Bytes length = shortest_matched_entry();
      if (!visit(length, column_of_row_)) return;
      subtract(length);
      line_sum -= length;
    }
  }

 private:
  static constexpr int kNone = -1;

  static void set_bit(std::vector<std::uint64_t>& words, std::size_t bit) {
    words[bit / 64] |= std::uint64_t{1} << (bit % 64);
  }
  static void clear_bit(std::vector<std::uint64_t>& words, std::size_t bit) {
    words[bit / 64] &= ~(std::uint64_t{1} << (bit % 64));
  }
  Bytes& entry(std::size_t row, std::size_t column) { return entries_[row * size_ + column]; }

  Bytes largest_useful_threshold() const;
  void rebuild_bits();
  void complete_matching();
  bool augment(std::size_t row);
  bool extend(std::size_t row);
  void flip_path(int column);
  void lower_threshold();
  Bytes shortest_matched_entry();
  void subtract(Bytes length);

  std::size_t size_;
  std::size_t words_;  // per row of bits
  std::vector<Bytes> entries_;
  Bytes threshold_ = 0;
  std::vector<std::uint64_t> bits_;  // [row][word]: entries of at least the threshold
  std::vector<int> column_of_row_;
  std::vector<int> row_of_column_;
  std::vector<std::uint64_t> free_columns_;
  // State of one search for an augmenting path.
  std::vector<std::uint64_t> unseen_columns_;
  std::vector<int> parent_row_;     // [column]
  std::vector<std::size_t> queue_;  // rows reached
};

/// No matching can have a shorter longest entry than the least of the rows' maxima.
Bytes MatchingPeeler::largest_useful_threshold() const {
  Bytes threshold = INT64_MAX;
  for (std::size_t row = 0; row < size_; ++row) {
    const auto begin = entries_.begin() + static_cast<std::ptrdiff_t>(row * size_);
    threshold = std::min(threshold, *std::max_element(begin, begin + static_cast<std::ptrdiff_t>(size_)));
  }
  return threshold;
}

void MatchingPeeler::rebuild_bits() {
  for (std::size_t row = 0; row < size_; ++row) {
    const Bytes* values = entries_.data() + row * size_;
    for (std::size_t word = 0; word < words_; ++word) {
      const std::size_t first = word * 64;
      const std::size_t count = std::min<std::size_t>(64, size_ - first);
      std::uint64_t mask = 0;
      for (std::size_t bit = 0; bit < count; ++bit) {
        mask |= static_cast<std::uint64_t>(values[first + bit] >= threshold_) << bit;
      }
      bits_[row * words_ + word] = mask;
    }
  }
}

void MatchingPeeler::complete_matching() {
  for (std::size_t row = 0; row < size_; ++row) {
    while (column_of_row_[row] == kNone && !augment(row)) lower_threshold();
  }
}

/// Breadth-first search for an augmenting path from an unmatched row.
bool MatchingPeeler::augment(std::size_t row) {
  std::fill(unseen_columns_.begin(), unseen_columns_.end(), ~std::uint64_t{0});
  queue_.clear();
  queue_.push_back(row);
  for (std::size_t head = 0; head < queue_.size(); ++head) {
    if (extend(queue_[head])) return true;
  }
  return false;
}

/// Follows the entries of one reached row; true when a free column was found and the path flipped.
bool MatchingPeeler::extend(std::size_t row) {
  const std::uint64_t* bits = bits_.data() + row * words_;
  for (std::size_t word = 0; word < words_; ++word) {
    const std::uint64_t found = bits[word] & free_columns_[word];
    if (found != 0) {
      const std::size_t column = word * 64 + static_cast<std::size_t>(std::countr_zero(found));
      parent_row_[column] = static_cast<int>(row);
      flip_path(static_cast<int>(column));
      return true;
    }
  }
  for (std::size_t word = 0; word < words_; ++word) {
    std::uint64_t fresh = bits[word] & unseen_columns_[word];
    unseen_columns_[word] &= ~fresh;
    while (fresh != 0) {
      const std::size_t column = word * 64 + static_cast<std::size_t>(std::countr_zero(fresh));
      fresh &= fresh - 1;
      parent_row_[column] = static_cast<int>(row);
      queue_.push_back(static_cast<std::size_t>(row_of_column_[column]));
    }
  }
  return false;
}

void MatchingPeeler::flip_path(int column) {
  clear_bit(free_columns_, static_cast<std::size_t>(column));
  while (column != kNone) {
    const int row = parent_row_[column];
    const int next = column_of_row_[row];
    column_of_row_[row] = column;
    row_of_column_[column] = row;
    column = next;
  }
}

/// After a failed search: any matching of the reached rows needs an entry in a column that was not reached,
/// so the threshold falls to the largest of these at once.
void MatchingPeeler::lower_threshold() {
  Bytes largest = 0;
  for (const std::size_t row : queue_) {
    for (std::size_t column = 0; column < size_; ++column) {
      const bool is_unseen = ((unseen_columns_[column / 64] >> (column % 64)) & 1) != 0;
      if (is_unseen) largest = std::max(largest, entry(row, column));
    }
  }
  if (largest == 0) throw std::logic_error("peeling: the line sums of the matrix are not constant");
  const Bytes fallen = threshold_ / kFallDenominator * kFallNumerator;
  threshold_ = std::max<Bytes>(1, std::min(largest, fallen));
  rebuild_bits();
}

Bytes MatchingPeeler::shortest_matched_entry() {
  Bytes shortest = INT64_MAX;
  for (std::size_t row = 0; row < size_; ++row) {
    shortest = std::min(shortest, entry(row, static_cast<std::size_t>(column_of_row_[row])));
  }
  return shortest;
}

/// Takes `length` off the matched entries; those that fall below the threshold leave the matching.
void MatchingPeeler::subtract(Bytes length) {
  for (std::size_t row = 0; row < size_; ++row) {
    const auto column = static_cast<std::size_t>(column_of_row_[row]);
    Bytes& value = entry(row, column);
    value -= length;
    if (value >= threshold_) continue;
    bits_[row * words_ + column / 64] &= ~(std::uint64_t{1} << (column % 64));
    set_bit(free_columns_, column);
    column_of_row_[row] = kNone;
    row_of_column_[column] = kNone;
  }
}

}  // namespace

std::vector<Bytes> padding_to_line_sum(int size, std::span<const Bytes> entries, Bytes line_sum) {
  const auto n = static_cast<std::size_t>(size);
  std::vector<Bytes> row_lack(n, line_sum);
  std::vector<Bytes> column_lack(n, line_sum);
  for (std::size_t row = 0; row < n; ++row) {
    for (std::size_t column = 0; column < n; ++column) {
      row_lack[row] -= entries[row * n + column];
      column_lack[column] -= entries[row * n + column];
    }
  }
  WideInteger total = 0;
  for (const Bytes lack : row_lack) total += lack;
  std::vector<Bytes> padding(n * n);
  if (total == 0) return padding;
  const std::vector<Bytes> row_share = row_lack;
  const std::vector<Bytes> column_share = column_lack;
  for (std::size_t row = 0; row < n; ++row) {
    for (std::size_t column = 0; column < n; ++column) {
      const auto bytes =
          static_cast<Bytes>(WideInteger{row_share[row]} * WideInteger{column_share[column]} / total);
      padding[row * n + column] = bytes;
      row_lack[row] -= bytes;
      column_lack[column] -= bytes;
    }
  }
  // What rounding left: the north-west corner rule, at most 2n - 1 further entries.
  for (std::size_t row = 0, column = 0; row < n && column < n;) {
    const Bytes bytes = std::min(row_lack[row], column_lack[column]);
    padding[row * n + column] += bytes;
    row_lack[row] -= bytes;
    column_lack[column] -= bytes;
    if (row_lack[row] == 0) {
      ++row;
    } else {
      ++column;
    }
  }
  return padding;
}

void peel_perfect_matchings(int size, std::vector<Bytes> entries, const MatchingVisitor& visit) {
  if (size == 0) return;
  Bytes line_sum = 0;
  for (int column = 0; column < size; ++column) line_sum += entries[static_cast<std::size_t>(column)];
  MatchingPeeler(size, std::move(entries)).peel(line_sum, visit);
}

}  // namespace aurora

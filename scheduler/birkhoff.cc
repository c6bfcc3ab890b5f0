#include "scheduler/birkhoff.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

namespace aurora {
namespace {

/// Levels of the threshold in each octave. More give fewer rounds and more searches.
constexpr int kLevelBits = 2;
constexpr int kLevelsPerOctave = 1 << kLevelBits;
constexpr int kNumLevels = 63 * kLevelsPerOctave;

/// The level of a length above zero: its leading bit, then the kLevelBits below it.
int level_of(Bytes length) {
  const int octave = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(length))) - 1;
  const Bytes steps =
      octave >= kLevelBits ? length >> (octave - kLevelBits) : length << (kLevelBits - octave);
  return octave * kLevelsPerOctave + static_cast<int>(steps) - kLevelsPerOctave;
}

/// The least length of a level.
Bytes threshold_of(int level) {
  const int octave = level / kLevelsPerOctave;
  const Bytes steps = kLevelsPerOctave + level % kLevelsPerOctave;
  if (octave >= kLevelBits) return steps << (octave - kLevelBits);
  const Bytes unit = Bytes{1} << (kLevelBits - octave);
  return (steps + unit - 1) / unit;
}

/// What is left is padded sparsely from this many entries per line down. Measured: at 1, 2, 3, 4 and 8 of
/// them uniform traffic takes 3.3, 3.5, 4.1, 4.8 and 7.8 n rounds of 40 lines, and least time at 2.
constexpr std::size_t kSparseEntriesPerLine = 2;

/// Where rounds may come in any sequence, matrices of at most this many entries per line whose total is this
/// much of n full lines are padded sparsely from the outset: 8 balanced lines take 5 us instead of 13.
constexpr std::size_t kTightEntriesPerLine = 8;
constexpr double kTight = 0.98;

struct Place {
  std::uint32_t row;
  std::uint32_t column;
};

/// Entries below the threshold by level, as linked lists through a matrix: adding one and taking all of a
/// level is constant time each, so that a fall of the threshold looks at no entry but those that it admits.
class EntriesByLevel {
 public:
  static constexpr int kLargestSize = 0xffff;  // row and column share 32 bits, one value of which is kNone

  explicit EntriesByLevel(std::size_t size) : size_(size), next_(size * size) { first_.fill(kNone); }

  void add(Place place, Bytes length) {
    const auto level = static_cast<std::size_t>(level_of(length));
    next_[place.row * size_ + place.column] = first_[level];
    first_[level] = pack(place);
    nonempty_[level / 64] |= std::uint64_t{1} << (level % 64);
  }

  /// The highest level that has entries, -1 when there are none. It never rises: what is added is below it.
  int highest() {
    while (nonempty_[top_word_] == 0) {
      if (top_word_ == 0) return -1;
      --top_word_;
    }
    return static_cast<int>(top_word_ * 64 + 63) - std::countl_zero(nonempty_[top_word_]);
  }

  template <class Visit>
  void take_all(int level, Visit visit) {
    const auto index = static_cast<std::size_t>(level);
    std::uint32_t packed = std::exchange(first_[index], kNone);
    nonempty_[index / 64] &= ~(std::uint64_t{1} << (index % 64));
    while (packed != kNone) {
      const Place place{packed >> 16, packed & 0xffff};
      packed = next_[place.row * size_ + place.column];
      visit(place);
    }
  }

 private:
  static constexpr std::uint32_t kNone = 0xffffffff;
  static std::uint32_t pack(Place place) { return place.row << 16 | place.column; }

  std::size_t size_;
  std::vector<std::uint32_t> next_;  // [row][column]
  std::array<std::uint32_t, kNumLevels> first_;
  std::array<std::uint64_t, (kNumLevels + 63) / 64> nonempty_{};
  std::size_t top_word_ = std::tuple_size_v<decltype(nonempty_)> - 1;  // no word above it has bits
};

/// Largest line of a matrix that is not negative.
Bytes largest_line(std::size_t size, std::span<const Bytes> entries) {
  Bytes largest = 0;
  std::vector<Bytes> column_sums(size);
  for (std::size_t row = 0; row < size; ++row) {
    Bytes row_sum = 0;
    for (std::size_t column = 0; column < size; ++column) {
      row_sum += entries[row * size + column];
      column_sums[column] += entries[row * size + column];
    }
    largest = std::max(largest, row_sum);
  }
  for (const Bytes sum : column_sums) largest = std::max(largest, sum);
  return largest;
}

/// What has to be added to a matrix so that all its lines sum to the same.
class Lack {
 public:
  Lack(std::size_t size, std::span<const Bytes> entries, Bytes line_sum)
      : size_(size), of_row_(size, line_sum), of_column_(size, line_sum) {
    for (std::size_t row = 0; row < size; ++row) {
      for (std::size_t column = 0; column < size; ++column) {
        of_row_[row] -= entries[row * size + column];
        of_column_[column] -= entries[row * size + column];
      }
    }
  }

  /// Adds to all entries in proportion to what row and column lack, so that padding empties together with
  /// the entries it is added to.
  void spread_over(std::span<Bytes> entries) {
    double total = 0;
    for (const Bytes lack : of_row_) total += static_cast<double>(lack);
    if (total == 0) return;
    // A little less, so that rounding never takes more than a line lacks.
    std::vector<double> column_share(size_);
    for (std::size_t column = 0; column < size_; ++column) {
      column_share[column] = static_cast<double>(of_column_[column]) / total * (1 - 1e-14);
    }
    for (std::size_t row = 0; row < size_; ++row) {
      const auto row_share = static_cast<double>(of_row_[row]);
      if (row_share == 0) continue;
      for (std::size_t column = 0; column < size_; ++column) {
        add(entries, row, column, static_cast<Bytes>(row_share * column_share[column]));
      }
    }
  }

  /// Adds to entries above zero, in order, all that both their lines lack.
  void add_to_present(std::span<Bytes> entries) {
    for (std::size_t row = 0; row < size_; ++row) {
      for (std::size_t column = 0; column < size_ && of_row_[row] > 0; ++column) {
        if (entries[row * size_ + column] == 0) continue;
        add(entries, row, column, std::min(of_row_[row], of_column_[column]));
      }
    }
  }

  /// Adds what is left: the north-west corner rule, at most one entry less than there are lines that lack.
  void add_corner(std::span<Bytes> entries) {
    for (std::size_t row = 0, column = 0; row < size_ && column < size_;) {
      add(entries, row, column, std::min(of_row_[row], of_column_[column]));
      if (of_row_[row] == 0) {
        ++row;
      } else {
        ++column;
      }
    }
  }

 private:
  void add(std::span<Bytes> entries, std::size_t row, std::size_t column, Bytes bytes) {
    entries[row * size_ + column] += bytes;
    of_row_[row] -= bytes;
    of_column_[column] -= bytes;
  }

  std::size_t size_;
  std::vector<Bytes> of_row_;
  std::vector<Bytes> of_column_;
};

/// `kWords` is the number of 64-bit words in a row of bits, or 0 when it is known at run time only. With
/// known sizes all that is kept per line stands in the object itself, which small matrices gain from.
template <std::size_t kWords>
class MatchingPeeler {
  template <class T>
  using PerLine = std::conditional_t<(kWords > 0), std::array<T, kWords * 64>, std::vector<T>>;
  using LineBits =
      std::conditional_t<(kWords > 0), std::array<std::uint64_t, kWords>, std::vector<std::uint64_t>>;

 public:
  MatchingPeeler(std::size_t size, std::vector<Bytes> entries)
      : size_(size),
        words_((size + 63) / 64),
        left_(std::move(entries)),
        line_sum_(largest_line(size, left_)),
        num_left_(static_cast<std::size_t>(
            std::count_if(left_.begin(), left_.end(), [](Bytes left) { return left > 0; }))),
        below_(size),
        bits_(size * num_words()) {
    if constexpr (kWords == 0) {
      for (auto* line : {&column_of_row_, &row_of_column_, &parent_row_}) line->resize(size_);
      for (auto* line : {&free_rows_, &queue_}) line->resize(size_);
      for (auto* line : {&free_columns_, &unseen_columns_}) line->resize(words_);
      length_of_row_.resize(size_);
      pieces_.resize(size_);
    }
  }

  void peel(RoundSequence sequence, const PieceVisitor& visit) {
    bool is_sparse = sequence == RoundSequence::kAny && is_small_and_tight();
    if (is_sparse) start_sparse();
    for (std::size_t num_rounds = 0; num_left_ > 0; ++num_rounds) {
      if (!is_sparse && is_better_sparse(num_rounds)) {
        is_sparse = true;
        start_sparse();
      } else if (num_rounds == 0 && !is_sparse) {
        start_dense();
      }
      for (std::size_t index = 0; index < num_free_rows_; ++index) augment(free_rows_[index]);
      Bytes length = line_sum_;
      for (std::size_t row = 0; row < size_; ++row) length = std::min(length, length_of_row_[row]);
      const std::size_t num_pieces = take(length);
      if (num_pieces > 0 && !visit({pieces_.data(), num_pieces})) return;
      subtract(length);
      line_sum_ -= length;
    }
  }

 private:
  static constexpr int kNone = -1;

  static void set_bit(std::uint64_t* words, std::size_t bit) {
    words[bit / 64] |= std::uint64_t{1} << (bit % 64);
  }
  static void clear_bit(std::uint64_t* words, std::size_t bit) {
    words[bit / 64] &= ~(std::uint64_t{1} << (bit % 64));
  }
  std::size_t num_words() const { return kWords > 0 ? kWords : words_; }
  std::uint64_t* bits_of(std::size_t row) { return bits_.data() + row * num_words(); }
  Bytes& entry(std::size_t row, std::size_t column) { return entries_[row * size_ + column]; }

  bool is_small_and_tight() const;
  bool is_better_sparse(std::size_t num_rounds) const;
  void start_dense();
  void start_sparse();
  void free_all();
  void augment(std::uint32_t row);
  bool reach_free_column(std::size_t row);
  bool extend(std::size_t row);
  void flip_path(std::size_t row, std::size_t column);
  void lower_threshold();
  std::size_t take(Bytes length);
  void subtract(Bytes length);

  std::size_t size_;
  std::size_t words_;
  std::vector<Bytes> left_;  // [row][column], without padding
  Bytes line_sum_;           // of what is left with its padding
  std::size_t num_left_;     // entries of left_ above zero
  std::vector<Bytes>
      entries_;  // [row][column], with padding; of matched ones length_of_row_ is right instead
  EntriesByLevel below_;
  Bytes threshold_ = std::numeric_limits<Bytes>::max();
  std::vector<std::uint64_t> bits_;  // [row][word]: entries of at least the threshold
  PerLine<int> column_of_row_;
  PerLine<int> row_of_column_;        // of matched columns
  PerLine<Bytes> length_of_row_;      // of the matched entry
  PerLine<std::uint32_t> free_rows_;  // the first num_free_rows_
  std::size_t num_free_rows_ = 0;
  LineBits free_columns_;
  PerLine<Piece> pieces_;  // of one round
  // State of one search for an augmenting path.
  LineBits unseen_columns_;
  PerLine<int> parent_row_;       // [column] of reached columns
  PerLine<std::uint32_t> queue_;  // rows reached, the first num_reached_
  std::size_t num_reached_ = 0;
};

/// Whether there is hardly any padding and large entries first would save no rounds: s entries without
/// padding take s - 2n + 2 rounds at most, the threshold some 6 n of generic ones.
template <std::size_t kWords>
bool MatchingPeeler<kWords>::is_small_and_tight() const {
  if (num_left_ > kTightEntriesPerLine * size_) return false;
  const double total = std::accumulate(left_.begin(), left_.end(), 0.0);
  return total > kTight * static_cast<double>(size_) * static_cast<double>(line_sum_);
}

/// Sparse rounds are at most one more than the entries that are left: a matrix of s entries, n lines each way
/// and c connected parts takes s - 2n + c + 1 rounds at most, and the corner rule adds a forest. The rounds
/// before them must leave room for that within n^2 - 2n + 2.
template <std::size_t kWords>
bool MatchingPeeler<kWords>::is_better_sparse(std::size_t num_rounds) const {
  if (num_left_ > kSparseEntriesPerLine * size_) return false;
  return num_rounds == 0 || num_rounds + num_left_ + 1 <= size_ * size_ - 2 * size_ + 2;
}

template <std::size_t kWords>
void MatchingPeeler<kWords>::start_dense() {
  entries_ = left_;
  Lack lack(size_, left_, line_sum_);
  lack.spread_over(entries_);
  lack.add_corner(entries_);
  for (std::uint32_t row = 0; row < size_; ++row) {
    for (std::uint32_t column = 0; column < size_; ++column) {
      if (entry(row, column) > 0) below_.add({row, column}, entry(row, column));
    }
  }
  free_all();
}

/// Starts anew with padding in few entries. All are admitted at once.
template <std::size_t kWords>
void MatchingPeeler<kWords>::start_sparse() {
  entries_ = left_;
  Lack lack(size_, left_, line_sum_);
  lack.add_to_present(entries_);
  lack.add_corner(entries_);
  threshold_ = 1;
  std::fill(bits_.begin(), bits_.end(), 0);
  for (std::size_t row = 0; row < size_; ++row) {
    for (std::size_t column = 0; column < size_; ++column) {
      if (entry(row, column) > 0) set_bit(bits_of(row), column);
    }
  }
  free_all();
}

template <std::size_t kWords>
void MatchingPeeler<kWords>::free_all() {
  std::fill(free_columns_.begin(), free_columns_.end(), 0);
  num_free_rows_ = 0;
  for (std::uint32_t row = 0; row < size_; ++row) {
    free_rows_[num_free_rows_++] = row;
    set_bit(free_columns_.data(), row);
    column_of_row_[row] = kNone;
  }
}

/// Breadth-first search for an augmenting path from an unmatched row; the threshold falls until there is one.
template <std::size_t kWords>
void MatchingPeeler<kWords>::augment(std::uint32_t row) {
  if (reach_free_column(row)) return;
  std::fill(unseen_columns_.begin(), unseen_columns_.end(), ~std::uint64_t{0});
  queue_[0] = row;
  num_reached_ = 1;
  for (;;) {
    for (std::size_t head = 0; head < num_reached_; ++head) {
      if (extend(queue_[head])) return;
    }
    // What was reached stays reached: the search goes on with the entries that the fall admits.
    lower_threshold();
    for (std::size_t index = 0; index < num_reached_; ++index) {
      if (reach_free_column(queue_[index])) return;
    }
  }
}

/// True when a reached row has an entry in a free column; the path that leads there is flipped.
template <std::size_t kWords>
bool MatchingPeeler<kWords>::reach_free_column(std::size_t row) {
  const std::uint64_t* bits = bits_of(row);
  for (std::size_t word = 0; word < num_words(); ++word) {
    const std::uint64_t found = bits[word] & free_columns_[word];
    if (found == 0) continue;
    const std::size_t column = word * 64 + static_cast<std::size_t>(std::countr_zero(found));
    free_columns_[word] &= ~(found & -found);
    flip_path(row, column);
    return true;
  }
  return false;
}

/// Reaches the rows that are matched to entries of a reached row; true when one of them ended the search.
/// They are tried at once, before their neighbours are listed: most searches end within two steps.
template <std::size_t kWords>
bool MatchingPeeler<kWords>::extend(std::size_t row) {
  const std::uint64_t* bits = bits_of(row);
  for (std::size_t word = 0; word < num_words(); ++word) {
    std::uint64_t fresh = bits[word] & unseen_columns_[word];
    unseen_columns_[word] &= ~fresh;
    for (; fresh != 0; fresh &= fresh - 1) {
      const std::size_t column = word * 64 + static_cast<std::size_t>(std::countr_zero(fresh));
      const auto reached = static_cast<std::uint32_t>(row_of_column_[column]);
      parent_row_[column] = static_cast<int>(row);
      queue_[num_reached_++] = reached;
      if (reach_free_column(reached)) return true;
    }
  }
  return false;
}

/// Matches `row` to `column`, the row's parent to the column that the row leaves, and so on.
template <std::size_t kWords>
void MatchingPeeler<kWords>::flip_path(std::size_t row, std::size_t column) {
  for (;;) {
    const int left = column_of_row_[row];
    if (left != kNone) entry(row, static_cast<std::size_t>(left)) = length_of_row_[row];
    length_of_row_[row] = entry(row, column);
    column_of_row_[row] = static_cast<int>(column);
    row_of_column_[column] = static_cast<int>(row);
    if (left == kNone) return;
    column = static_cast<std::size_t>(left);
    row = static_cast<std::size_t>(parent_row_[column]);
  }
}

template <std::size_t kWords>
void MatchingPeeler<kWords>::lower_threshold() {
  const int level = below_.highest();
  if (level < 0) throw std::logic_error("peeling: the line sums of the matrix are not constant");
  threshold_ = threshold_of(level);
  below_.take_all(level, [&](Place place) { set_bit(bits_of(place.row), place.column); });
}

/// Lists in `pieces_` what the matched entries carry in a round of `length`: what is left first, then
/// padding.
template <std::size_t kWords>
std::size_t MatchingPeeler<kWords>::take(Bytes length) {
  std::size_t num_pieces = 0;
  std::size_t num_emptied = 0;
  const std::size_t size = size_;
  const int* column_of_row = column_of_row_.data();
  Bytes* left_of_row = left_.data();
  Piece* pieces = pieces_.data();
  for (std::size_t row = 0; row < size; ++row, left_of_row += size) {
    const int column = column_of_row[row];
    const Bytes before = left_of_row[column];
    const Bytes amount = std::min(before, length);
    const Bytes left = before - amount;
    left_of_row[column] = left;
    pieces[num_pieces] = {static_cast<int>(row), column, amount, left};
    num_pieces += static_cast<std::size_t>(amount != 0);
    num_emptied += static_cast<std::size_t>(left == 0) & static_cast<std::size_t>(amount != 0);
  }
  num_left_ -= num_emptied;
  return num_pieces;
}

/// Takes `length` off the matched entries; those that fall below the threshold leave the matching.
template <std::size_t kWords>
void MatchingPeeler<kWords>::subtract(Bytes length) {
  num_free_rows_ = 0;
  for (std::uint32_t row = 0; row < size_; ++row) {
    const Bytes left = length_of_row_[row] -= length;
    if (left >= threshold_) continue;
    const auto column = static_cast<std::uint32_t>(column_of_row_[row]);
    entry(row, column) = left;
    if (left > 0) below_.add({row, column}, left);
    clear_bit(bits_of(row), column);
    set_bit(free_columns_.data(), column);
    column_of_row_[row] = kNone;
    free_rows_[num_free_rows_++] = row;
  }
}

}  // namespace

void peel_rounds(int size, std::vector<Bytes> entries, RoundSequence sequence, const PieceVisitor& visit) {
  if (size > EntriesByLevel::kLargestSize) {
    throw std::invalid_argument("peeling: " + std::to_string(size) + " rows; there may be at most " +
                                std::to_string(EntriesByLevel::kLargestSize));
  }
  const auto n = static_cast<std::size_t>(size);
  // The smallest peeler that is known to the compiler and fits; any size has the last.
  const std::size_t num_words = (n + 63) / 64;
  if (num_words <= 1) return MatchingPeeler<1>(n, std::move(entries)).peel(sequence, visit);
  if (num_words <= 2) return MatchingPeeler<2>(n, std::move(entries)).peel(sequence, visit);
  if (num_words <= 5) return MatchingPeeler<5>(n, std::move(entries)).peel(sequence, visit);
  if (num_words <= 16) return MatchingPeeler<16>(n, std::move(entries)).peel(sequence, visit);
  MatchingPeeler<0>(n, std::move(entries)).peel(sequence, visit);
}

}  // namespace aurora

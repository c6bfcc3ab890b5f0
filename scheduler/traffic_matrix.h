// Who owes whom how much in one all-to-all exchange: D[i][j] bytes from GPU i to GPU j. The diagonal is local
// and free; it is stored as zero.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "scheduler/units.h"

namespace aurora {

class TrafficMatrix {
 public:
  TrafficMatrix() = default;
  /// All zero. Throws std::invalid_argument when `num_gpus` < 0.
  explicit TrafficMatrix(int num_gpus);
  /// Row-major entries, `num_gpus`^2 of them, none negative, every row and column sum within 2^62; diagonal
  /// entries are dropped. Throws std::invalid_argument naming row, column and value.
  TrafficMatrix(int num_gpus, std::span<const Bytes> row_major);

  int num_gpus() const { return num_gpus_; }
  Bytes at(int source, int destination) const { return entries_[index(source, destination)]; }
  /// Ignores the diagonal. `bytes` must not be negative.
  void set(int source, int destination, Bytes bytes);
  void add(int source, int destination, Bytes bytes) {
    set(source, destination, at(source, destination) + bytes);
  }

  Bytes row_sum(int source) const;
  Bytes column_sum(int destination) const;
  Bytes total() const;
  std::span<const Bytes> row(int source) const {
    return {entries_.data() + index(source, 0), static_cast<std::size_t>(num_gpus_)};
  }
  TrafficMatrix transposed() const;
  bool operator==(const TrafficMatrix&) const = default;

 private:
  std::size_t index(int source, int destination) const {
    return static_cast<std::size_t>(source) * static_cast<std::size_t>(num_gpus_) +
           static_cast<std::size_t>(destination);
  }

  int num_gpus_ = 0;
  std::vector<Bytes> entries_;
};

}  // namespace aurora

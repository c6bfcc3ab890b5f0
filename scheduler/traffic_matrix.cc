#include "scheduler/traffic_matrix.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace aurora {
namespace {

/// Sums of lines stay below this, so that a sum of two of them still fits into 64 bits.
constexpr Bytes kMaxLineSum = Bytes{1} << 62;

[[noreturn]] void refuse(const std::string& text) { throw std::invalid_argument("traffic matrix: " + text); }

std::size_t checked_size(int num_gpus) {
  if (num_gpus < 0) refuse("number of GPUs is " + std::to_string(num_gpus) + "; it must not be negative");
  return static_cast<std::size_t>(num_gpus) * static_cast<std::size_t>(num_gpus);
}

void check_line(const char* kind, int line, Bytes& sum, Bytes bytes) {
  if (bytes > kMaxLineSum - sum) {
    refuse("the sum of " + std::string(kind) + " " + std::to_string(line) + " exceeds 2^62 bytes");
  }
  sum += bytes;
}

}  // namespace

TrafficMatrix::TrafficMatrix(int num_gpus) : num_gpus_(num_gpus), entries_(checked_size(num_gpus)) {}

TrafficMatrix::TrafficMatrix(int num_gpus, std::span<const Bytes> row_major) : TrafficMatrix(num_gpus) {
  if (row_major.size() != entries_.size()) {
    refuse(std::to_string(row_major.size()) + " entries for " + std::to_string(num_gpus) + " GPUs; " +
           std::to_string(entries_.size()) + " are needed");
  }
  std::vector<Bytes> row_sums(static_cast<std::size_t>(num_gpus));
  std::vector<Bytes> column_sums(static_cast<std::size_t>(num_gpus));
  for (int source = 0; source < num_gpus; ++source) {
    for (int destination = 0; destination < num_gpus; ++destination) {
      const Bytes bytes = row_major[index(source, destination)];
      if (bytes < 0) {
        refuse("entry in row " + std::to_string(source) + ", column " + std::to_string(destination) + " is " +
               std::to_string(bytes) + "; bytes must not be negative");
      }
      if (source == destination) continue;
      check_line("row", source, row_sums[source], bytes);
      check_line("column", destination, column_sums[destination], bytes);
      entries_[index(source, destination)] = bytes;
    }
  }
}

void TrafficMatrix::set(int source, int destination, Bytes bytes) {
  if (bytes < 0) {
    refuse("entry in row " + std::to_string(source) + ", column " + std::to_string(destination) + " set to " +
           std::to_string(bytes) + "; bytes must not be negative");
  }
  if (source != destination) entries_[index(source, destination)] = bytes;
}

Bytes TrafficMatrix::row_sum(int source) const {
  Bytes sum = 0;
  for (const Bytes bytes : row(source)) sum += bytes;
  return sum;
}

Bytes TrafficMatrix::column_sum(int destination) const {
  Bytes sum = 0;
  for (int source = 0; source < num_gpus_; ++source) sum += at(source, destination);
  return sum;
}

Bytes TrafficMatrix::total() const {
  Bytes sum = 0;
  for (const Bytes bytes : entries_) sum += bytes;
  return sum;
}

TrafficMatrix TrafficMatrix::transposed() const {
  TrafficMatrix result(num_gpus_);
  for (int source = 0; source < num_gpus_; ++source) {
    for (int destination = 0; destination < num_gpus_; ++destination) {
      result.entries_[index(destination, source)] = at(source, destination);
    }
  }
  return result;
}

}  // namespace aurora

// Random numbers that are the same on every machine and standard library: SplitMix64 (Steele, Lea, Flood
// 2014). Plans are computed by all ranks for themselves and have to agree; std::shuffle and the std
// distributions do not promise that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace aurora {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  /// Uniform in [0, limit), limit above 0. The bias, limit / 2^64, is of no concern here.
  std::size_t below(std::size_t limit) { return static_cast<std::size_t>(next() % limit); }
  /// Uniform in [0, 1).
  double unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

  template <class T>
  void shuffle(std::vector<T>& values) {
    for (std::size_t left = values.size(); left > 1; --left) std::swap(values[left - 1], values[below(left)]);
  }

 private:
  std::uint64_t state_;
};

}  // namespace aurora

// The weights of one MoE layer several times over in device memory, so that a run can read others than the
// runs before it and find nothing in the caches.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "benchmarks/layer/repeated_values.h"
#include "benchmarks/layer/shape.h"
#include "kernels/backend.h"
#include "kernels/ops.h"

namespace aurora::bench {

/// In a copy, expert follows expert, and of an expert gate, up and down: element i of all of this is value i.
class WeightCopies {
 public:
  /// The values outlive the work of `reserve`.
  WeightCopies(Backend& backend, Stream& stream, const LayerShape& shape, DType dtype,
               const RepeatedValues& values);

  /// Makes sure that there are `count` copies. Submits work.
  void reserve(std::size_t count);
  /// Stable while this object lives.
  const ExpertBank& copy(std::size_t index) const { return *copies_[index].experts; }

 private:
  struct Copy {
    Buffer memory;
    std::unique_ptr<ExpertBank> experts;
  };

  Backend* backend_;
  Stream* stream_;
  LayerShape shape_;
  DType dtype_;
  const RepeatedValues* values_;
  std::vector<Copy> copies_;
};

}  // namespace aurora::bench

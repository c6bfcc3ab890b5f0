#include "benchmarks/layer/weight_copies.h"

#include <utility>

namespace aurora::bench {

WeightCopies::WeightCopies(Backend& backend, Stream& stream, const LayerShape& shape, DType dtype,
                           const RepeatedValues& values)
    : backend_(&backend), stream_(&stream), shape_(shape), dtype_(dtype), values_(&values) {}

void WeightCopies::reserve(std::size_t count) {
  const std::int64_t matrix = shape_.hidden * shape_.inner;
  const std::int64_t all = shape_.num_experts * shape_.expert_elements();
  const std::size_t element = dtype_bytes(dtype_);
  while (copies_.size() < count) {
    Copy copy;
    copy.memory = backend_->allocate(static_cast<std::size_t>(all) * element, MemorySpace::kDevice);
    if (copies_.empty()) {
      values_->fill(*stream_, Tensor(copy.memory.data(), dtype_, {all}));
    } else {
      backend_->copy(*stream_, copy.memory.data(), copies_.front().memory.data(), copy.memory.size_bytes());
    }
    std::vector<ExpertWeights> experts;
    for (std::int64_t expert = 0; expert < shape_.num_experts; ++expert) {
      const auto at = [&](std::int64_t index) {
        return copy.memory.data() + static_cast<std::size_t>((3 * expert + index) * matrix) * element;
      };
      experts.push_back({.gate = Tensor(at(0), dtype_, {shape_.inner, shape_.hidden}),
                         .up = Tensor(at(1), dtype_, {shape_.inner, shape_.hidden}),
                         .down = Tensor(at(2), dtype_, {shape_.hidden, shape_.inner})});
    }
    copy.experts = backend_->ops().make_expert_bank(experts);
    copies_.push_back(std::move(copy));
  }
}

}  // namespace aurora::bench

// The experts of one layer on one rank, in the form in which a backend reads them.
//
// A product over many experts finds each expert's weights on the device, so what the device needs for that
// (addresses, descriptors of its copy engine) is made when the set of experts is, not for every call.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/tensor.h"

namespace aurora {

/// The weights of one expert's SwiGLU feed-forward network, device memory.
struct ExpertWeights {
  Tensor gate;  // [inner, hidden]
  Tensor up;    // [inner, hidden]
  Tensor down;  // [hidden, inner]
};

/// Made by `Ops::make_expert_bank`, used by any number of calls. The experts are of one shape and dtype.
/// Their weights are not copied and, like the bank, must outlive the work.
class ExpertBank {
 public:
  /// Throws kInternal when an expert is not of the first one's shape and dtype.
  explicit ExpertBank(std::span<const ExpertWeights> experts);
  virtual ~ExpertBank() = default;
  ExpertBank(const ExpertBank&) = delete;
  ExpertBank& operator=(const ExpertBank&) = delete;

  std::span<const ExpertWeights> experts() const { return experts_; }
  std::int64_t size() const { return static_cast<std::int64_t>(experts_.size()); }
  // Of each expert; 0 and float32 without experts.
  std::int64_t hidden() const { return experts_.empty() ? 0 : experts_.front().gate.dim(1); }
  std::int64_t inner() const { return experts_.empty() ? 0 : experts_.front().gate.dim(0); }
  DType dtype() const { return experts_.empty() ? DType::kFloat32 : experts_.front().gate.dtype(); }

 private:
  std::vector<ExpertWeights> experts_;
};

}  // namespace aurora

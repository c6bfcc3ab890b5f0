// A view of a dense row-major array: pointer, element type, shape. It owns nothing and checks nothing at run
// time but its own arithmetic; who allocates is `Buffer` (backend.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "kernels/dtype.h"
#include "kernels/error.h"

namespace aurora {

class Tensor {
 public:
  static constexpr int kMaxDims = 4;

  Tensor() = default;
  Tensor(void* data, DType dtype, std::initializer_list<std::int64_t> shape) : data_(data), dtype_(dtype) {
    check(shape.size() <= kMaxDims, "a tensor has at most four dimensions");
    for (const std::int64_t extent : shape) shape_[num_dims_++] = extent;
  }

  DType dtype() const { return dtype_; }
  int num_dims() const { return num_dims_; }
  /// Extent of dimension `index`; 1 beyond the last, so that a vector is also a one-column matrix.
  std::int64_t dim(int index) const { return index < num_dims_ ? shape_[index] : 1; }
  std::int64_t num_elements() const {
    std::int64_t count = num_dims_ == 0 ? 0 : 1;
    for (int i = 0; i < num_dims_; ++i) count *= shape_[i];
    return count;
  }
  std::size_t size_bytes() const { return static_cast<std::size_t>(num_elements()) * dtype_bytes(dtype_); }
  bool is_empty() const { return num_elements() == 0; }
  bool has_data() const { return data_ != nullptr; }

  std::byte* bytes() const { return static_cast<std::byte*>(data_); }
  float* f32() const {
    check(dtype_ == DType::kFloat32 || is_empty(), "tensor is not float32");
    return static_cast<float*>(data_);
  }
  std::int32_t* i32() const {
    check(dtype_ == DType::kInt32 || is_empty(), "tensor is not int32");
    return static_cast<std::int32_t*>(data_);
  }
  std::uint16_t* u16() const {
    check(dtype_ == DType::kBFloat16 || dtype_ == DType::kFloat16 || is_empty(), "tensor is not 16-bit");
    return static_cast<std::uint16_t*>(data_);
  }

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::kFloat32;
  int num_dims_ = 0;
  std::array<std::int64_t, kMaxDims> shape_{};
};

}  // namespace aurora

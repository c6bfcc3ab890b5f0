// Device memory that grows with the largest step seen and is never given back: the scratch of the layers.
//
// `reserve` may move the block, so views taken earlier are void afterwards; callers reserve only when no work
// that uses the block is under way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace aurora {

class Workspace {
 public:
  explicit Workspace(Backend& backend, MemorySpace space = MemorySpace::kDevice)
      : backend_(&backend), space_(space) {}

  /// At least `size_bytes` bytes; contents are undefined when the block grew.
  std::byte* reserve(std::size_t size_bytes) {
    if (size_bytes > buffer_.size_bytes()) {
      buffer_ = Buffer();  // release first: the peak is one block, not two
      buffer_ = backend_->allocate(size_bytes + size_bytes / 4, space_);
    }
    return buffer_.data();
  }

  Tensor tensor(DType dtype, std::int64_t rows, std::int64_t columns) {
    return {reserve(static_cast<std::size_t>(rows * columns) * dtype_bytes(dtype)), dtype, {rows, columns}};
  }
  Tensor vector(DType dtype, std::int64_t count) {
    return {reserve(static_cast<std::size_t>(count) * dtype_bytes(dtype)), dtype, {count}};
  }

  /// Scratch of at least `size_bytes` bytes, of no particular type.
  Tensor bytes(std::size_t size_bytes) {
    return vector(DType::kInt32, static_cast<std::int64_t>((size_bytes + 3) / 4));
  }

  /// Copies `values`, which must stay unchanged until the copy is done, and returns the device's view of
  /// them.
  Tensor upload(Stream& stream, std::span<const std::int32_t> values) {
    return upload_bytes(stream, values.data(), DType::kInt32, static_cast<std::int64_t>(values.size()));
  }
  Tensor upload(Stream& stream, std::span<const float> values) {
    return upload_bytes(stream, values.data(), DType::kFloat32, static_cast<std::int64_t>(values.size()));
  }

 private:
  Tensor upload_bytes(Stream& stream, const void* values, DType dtype, std::int64_t count) {
    Tensor view = vector(dtype, count);
    if (count > 0) backend_->copy(stream, view.bytes(), values, view.size_bytes());
    return view;
  }

  Backend* backend_;
  MemorySpace space_;
  Buffer buffer_;
};

}  // namespace aurora

// Reading Hugging Face checkpoints: memory-mapped safetensors files, single or sharded.
//
// Opening validates the whole header (sizes, overflow, dtype, offsets inside the file, no overlaps, no holes);
// a tensor's bytes are touched only when it is read, so a rank pages in only what it needs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/tensor.h"

namespace aurora {

/// One tensor inside a mapped file.
struct StoredTensor {
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  std::filesystem::path file;  // for messages
};

class Checkpoint {
 public:
  /// Opens `folder`/model.safetensors, or the shards named by `folder`/model.safetensors.index.json.
  /// Throws Error naming the file, the tensor and the offsets that are wrong.
  static Checkpoint open(const std::filesystem::path& folder);
  /// Opens one file, e.g. reference.safetensors.
  static Checkpoint open_file(const std::filesystem::path& file);

  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  bool contains(std::string_view name) const;
  std::vector<std::string> names() const;  // sorted
  /// Throws kNotFound naming the tensor and the folder.
  const StoredTensor& find(std::string_view name) const;

  /// Copies tensor `name` into `destination` (host memory, float32 or bfloat16), converting from its stored
  /// float32, float16 or bfloat16. Throws kFormat when the stored shape differs from the destination's, naming both.
  void read(std::string_view name, const Tensor& destination) const;

 private:
  struct Contents;
  explicit Checkpoint(std::unique_ptr<Contents> contents);
  std::unique_ptr<Contents> contents_;
};

}  // namespace aurora

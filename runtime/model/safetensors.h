// Reading Hugging Face checkpoints: memory-mapped safetensors files, single or sharded.
//
// A safetensors file is: the length of the header (8 bytes, little endian), the header (JSON: for each tensor
// its dtype, shape and [begin, end) byte offsets into the data), the data. Format:
// https://huggingface.co/docs/safetensors. As in its reference reader, the tensors must cover the data
// without overlap and without hole, and a header longer than 100 000 000 bytes is refused.
//
// Opening validates the whole header (sizes, overflow, dtype, offsets inside the file, no overlaps, no
// holes); a tensor's bytes are touched only when it is read, so a rank pages in only what it needs. A file
// must not be cut short while it is open: the system then kills the process (SIGBUS), as for every
// memory-mapped file.
//
// Thread-safe: an open checkpoint is immutable.
#pragma once

#include <cstddef>
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

/// One tensor inside a mapped file. `bytes` live as long as the Checkpoint and may be unaligned.
struct StoredTensor {
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  std::filesystem::path file;  // for messages
};

class Checkpoint {
 public:
  /// Opens `folder`/model.safetensors, or if there is none the shards named by
  /// `folder`/model.safetensors.index.json; of a shard only the tensors that the index places there are
  /// visible. Throws Error naming the file, the tensor and the offsets that are wrong.
  static Checkpoint open(const std::filesystem::path& folder);
  /// Opens one file, e.g. reference.safetensors.
  static Checkpoint open_file(const std::filesystem::path& file);
  /// Takes the contents of one file from memory; `origin` is its name in messages.
  static Checkpoint parse(std::vector<std::byte> contents, const std::filesystem::path& origin);

  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  bool contains(std::string_view name) const;
  std::vector<std::string> names() const;  // sorted
  /// Throws kNotFound naming the tensor and the folder, kUnsupported naming the dtype when the tensor is
  /// stored in one that DType does not have (such tensors do no harm until they are asked for).
  const StoredTensor& find(std::string_view name) const;

  /// Copies tensor `name` into `destination` (host memory, float32 or bfloat16), converting from its stored
  /// float32, float16 or bfloat16. Throws kFormat when the stored shape differs from the destination's,
  /// naming both.
  void read(std::string_view name, const Tensor& destination) const;

 private:
  struct Contents;
  explicit Checkpoint(std::unique_ptr<Contents> contents);
  std::unique_ptr<Contents> contents_;
};

}  // namespace aurora

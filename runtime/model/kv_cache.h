// Paged key/value cache of one model on one rank, with a bound on memory (Kwon et al., "PagedAttention", SOSP
// 2023).
//
// The cache is cut into blocks of `block_tokens` tokens; a sequence owns a list of blocks and grows block by
// block. Blocks are handed out lowest first, so that the same history gives the same layout.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace aurora {

struct KvCacheShape {
  std::int64_t num_layers = 0;
  std::int64_t num_blocks = 0;
  std::int64_t block_tokens = 16;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_width = 0;
  DType dtype = DType::kFloat32;

  /// Bytes of one block over all layers, keys and values.
  std::int64_t block_bytes() const {
    return 2 * num_layers * block_tokens * num_kv_heads * head_width *
           static_cast<std::int64_t>(dtype_bytes(dtype));
  }
};

/// The blocks of one sequence, in order of position.
using BlockTable = std::vector<std::int32_t>;

class KvCache {
 public:
  KvCache(const KvCacheShape& shape, Backend& backend);

  const KvCacheShape& shape() const { return shape_; }
  /// [num_blocks, block_tokens, num_kv_heads, head_width]
  Tensor keys(std::int64_t layer) const { return view(layer, 0); }
  Tensor values(std::int64_t layer) const { return view(layer, 1); }

  std::int64_t num_free_blocks() const { return static_cast<std::int64_t>(free_.size()); }
  std::int64_t blocks_for(std::int64_t num_tokens) const {
    return (num_tokens + shape_.block_tokens - 1) / shape_.block_tokens;
  }
  /// Extends `table` to hold `num_tokens` tokens; false, and nothing changed, when too few blocks are free.
  bool grow(BlockTable& table, std::int64_t num_tokens);
  /// Returns all blocks of `table`.
  void release(BlockTable& table);
  /// Cache slot of a position of the sequence.
  std::int32_t slot(const BlockTable& table, std::int64_t position) const {
    return static_cast<std::int32_t>(table[position / shape_.block_tokens] * shape_.block_tokens +
                                     position % shape_.block_tokens);
  }

 private:
  Tensor view(std::int64_t layer, std::int64_t which) const;

  KvCacheShape shape_;
  Buffer memory_;
  std::vector<std::int32_t> free_;  // a heap, lowest block first
};

}  // namespace aurora

#include "runtime/model/kv_cache.h"

#include <algorithm>
#include <functional>

namespace aurora {

KvCache::KvCache(const KvCacheShape& shape, Backend& backend)
    : shape_(shape),
      memory_(backend.allocate(static_cast<std::size_t>(shape.num_blocks * shape.block_bytes()),
                               MemorySpace::kDevice)) {
  free_.resize(static_cast<std::size_t>(shape.num_blocks));
  for (std::size_t block = 0; block < free_.size(); ++block) free_[block] = static_cast<std::int32_t>(block);
}

Tensor KvCache::view(std::int64_t layer, std::int64_t which) const {
  const std::int64_t plane = shape_.num_blocks * shape_.block_bytes() / (2 * shape_.num_layers);
  return {memory_.data() + (2 * layer + which) * plane,
          shape_.dtype,
          {shape_.num_blocks, shape_.block_tokens, shape_.num_kv_heads, shape_.head_width}};
}

bool KvCache::grow(BlockTable& table, std::int64_t num_tokens) {
  const std::int64_t missing = blocks_for(num_tokens) - static_cast<std::int64_t>(table.size());
  if (missing > num_free_blocks()) return false;
  for (std::int64_t i = 0; i < missing; ++i) {
    std::pop_heap(free_.begin(), free_.end(), std::greater<>());
    table.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void KvCache::release(BlockTable& table) {
  for (const std::int32_t block : table) {
    free_.push_back(block);
    std::push_heap(free_.begin(), free_.end(), std::greater<>());
  }
  table.clear();
}

}  // namespace aurora

// What the parts of a MoE block have in common: its shape, its weights, and where it runs.
#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/ops.h"
#include "runtime/dispatch/placement_table.h"
#include "runtime/dispatch/row_layout.h"

namespace aurora {

/// Weights of a MoE block that every rank holds. Device memory.
struct MoeLayerWeights {
  Tensor router;              // [num_experts, hidden]
  ExpertWeights shared;       // no data: no shared expert
  Tensor shared_expert_gate;  // [1, hidden], or no data
};

struct MoeShape {
  std::int64_t hidden = 0;
  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;
  std::int64_t expert_inner = 0;
  std::int64_t shared_inner = 0;  // 0: no shared expert
  bool normalize_top_k = true;
  DType dtype = DType::kFloat32;  // of the block's input and its weights
};

/// Whether the tokens of a rank meet all experts on the rank itself, without rows that are dispatched and
/// come back: it has nobody to send to. But `ReturnMode::kPerPair` promises the same bits on any number of
/// ranks; where the wire rounds what it carries, it has to round on one rank as well.
inline bool stays_on_rank(int num_ranks, ReturnMode mode, const WireTypes& wire, DType compute_dtype) {
  const bool wire_rounds =
      wire.rows != compute_dtype || dtype_bytes(wire.results) < dtype_bytes(compute_dtype);
  return num_ranks == 1 && !(mode == ReturnMode::kPerPair && wire_rounds);
}

/// The backend and the stream outlive the block.
struct MoeContext {
  MoeShape shape;
  RowLayout layout;
  ReturnMode return_mode = ReturnMode::kPerRow;
  RankOf self;
  Backend* backend = nullptr;
  Stream* stream = nullptr;

  const Ops& ops() const { return backend->ops(); }
};

}  // namespace aurora

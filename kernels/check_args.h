// The shape rules of ops.h, in one place for all backends.
//
// Every operation's arguments are checked in the submitting call: a wrong shape is a bug of ours (kInternal)
// and the text names the tensor with both shapes. Indices that live in tensors can only be checked when the
// work runs; each backend does so by itself and reports with `index_text`.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "kernels/ops.h"

namespace aurora {

/// Throws kInternal naming both shapes when `tensor` is not of `shape` (dimensions beyond the last count as
/// 1).
void check_shape(const Tensor& tensor, std::initializer_list<std::int64_t> shape, std::string_view name);

/// "internal error: NAME[ROW] is VALUE, must be in [0, LIMIT)"
std::string index_text(std::int64_t value, std::int64_t limit, std::int64_t row, std::string_view name);

// One function per operation; arguments without rows pass.
void check_args(const EmbedArgs& args);
void check_args(const RmsNormArgs& args);
void check_args(const LinearArgs& args);
void check_args(const RopeArgs& args);
void check_args(const ClampArgs& args);
void check_args(const AppendKvArgs& args);
void check_args(const PagedAttentionArgs& args);
void check_args(const RouteArgs& args);
void check_args(const GatherRowsArgs& args);
/// `scratch_bytes` is what the backend needs.
void check_args(const AssignRowsArgs& args, std::size_t scratch_bytes);
void check_args(const PackRowsArgs& args);
void check_args(const DequantizeRowsArgs& args);
void check_args(const GroupRowsArgs& args, std::size_t scratch_bytes);
void check_args(const GroupPairsArgs& args, std::size_t scratch_bytes);
void check_args(const WeightedSumArgs& args);
void check_args(const ExpertFfnArgs& args, std::size_t scratch_bytes);
void check_args(const SiluMultiplyArgs& args);
void check_args(const AddArgs& args);
void check_args(const SigmoidGatedAddArgs& args);
void check_args(const SampleArgs& args);

}  // namespace aurora

// The layer's output for single tokens in float64, and how far a right implementation may be from it.
//
// The tolerance follows the roundings that the layer's data types make necessary, for each output element by
// itself. Storing a value in a type of unit roundoff v (2^-8 for bfloat16, 2^-24 for float32) changes it by a
// relative error of at most v: gate, up, their product, every expert's output, and the sum. Such errors are
// independent with mean 0, so by Hoeffding's inequality a sum of them, each of at most r_i, exceeds
// lambda sqrt(sum r_i^2) with probability below 2 exp(-lambda^2 / 2): 3e-14 for lambda = 8. Sums of n terms
// in float32 are off by at most lambda sqrt(n) u sum |terms| in the same sense (Higham and Mary, SIAM J. Sci.
// Comput. 41, 2019), with u = 2^-23, as matrix units may cut off instead of rounding.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "benchmarks/layer/repeated_values.h"
#include "benchmarks/layer/routing.h"
#include "benchmarks/layer/shape.h"
#include "kernels/dtype.h"

namespace aurora::bench {

struct ReferenceLayer {
  const LayerShape& shape;
  const LayerRouting& routing;
  DType dtype = DType::kFloat32;
  const RepeatedValues& weights;  // as WeightCopies lays them out
  const RepeatedValues& hidden;   // [num_tokens, hidden]
  std::span<const float> logits;  // [num_tokens, num_experts]
};

struct ReferenceRow {
  std::vector<double> values;      // [hidden]
  std::vector<double> tolerances;  // [hidden]
};

/// One token's output. Uses all processors.
ReferenceRow reference_row(const ReferenceLayer& layer, std::int64_t token);

/// Elements of `output`, [num_tokens, hidden], that are not within their tolerance, over up to `most_tokens`
/// tokens spread over the batch. `num_checked` becomes the number of elements looked at.
std::int64_t count_wrong_elements(const ReferenceLayer& layer, std::span<const float> output,
                                  std::int64_t most_tokens, std::int64_t& num_checked);

}  // namespace aurora::bench

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/row_copy.cuh"

namespace aurora::cuda {
namespace {

template <class T>
struct Rotation {
  T* query;  // [num_tokens, num_query_heads, 2 * half]
  T* key;    // [num_tokens, num_key_heads, 2 * half]
  const std::int32_t* positions;
  const float* cosine;  // [num_positions, half]
  const float* sine;
  std::int64_t num_positions;
  int num_query_heads, num_key_heads, half;
  unsigned blocks_per_token;
};

/// A thread rotates `kVector` neighbouring pairs of one head; query heads come first, key heads then. It
/// reads them while it waits for its position.
template <class T, int kVector>
__global__ void rope_kernel(Rotation<T> r, FaultSink faults) {
  const std::int64_t token = blockIdx.x / r.blocks_per_token;
  const int parts = r.half / kVector;
  const int at = static_cast<int>(blockIdx.x % r.blocks_per_token * blockDim.x + threadIdx.x);
  const int head = at / parts;
  const int column = at % parts * kVector;
  wait_for_kernel_before();
  let_next_kernel_begin();
  if (head >= r.num_query_heads + r.num_key_heads) return;
  const bool is_query = head < r.num_query_heads;
  T* heads = is_query ? r.query + token * r.num_query_heads * 2 * r.half
                      : r.key + token * r.num_key_heads * 2 * r.half;
  T* first = heads + (is_query ? head : head - r.num_query_heads) * 2 * r.half + column;
  auto x = load_elements<kVector>(first);
  auto y = load_elements<kVector>(first + r.half);
  const std::int64_t position = r.positions[token];
  if (!index_fits(faults, FaultSite::kRopePositions, token, position, r.num_positions)) return;
  const auto c = load_elements<kVector>(r.cosine + position * r.half + column);
  const auto s = load_elements<kVector>(r.sine + position * r.half + column);
  for (int i = 0; i < kVector; ++i) {
    const float before = to_float(x.part[i]);
    const float after = to_float(y.part[i]);
    x.part[i] = from_float<T>(before * c.part[i] - after * s.part[i]);
    y.part[i] = from_float<T>(after * c.part[i] + before * s.part[i]);
  }
  store_elements(x, first);
  store_elements(y, first + r.half);
}

template <class T, int kVector>
void launch(CudaStream& stream, Rotation<T> r, std::int64_t num_tokens) {
  constexpr std::int64_t kThreads = 64;  // few, so that the tokens of a small batch are spread over the GPU
  const std::int64_t parts =
      static_cast<std::int64_t>(r.num_query_heads + r.num_key_heads) * (r.half / kVector);
  r.blocks_per_token = blocks_for(parts, kThreads);
  launch_dependent(rope_kernel<T, kVector>, static_cast<unsigned>(num_tokens) * r.blocks_per_token, kThreads,
                   0, stream.handle(), "rope", r, stream.faults());
}

}  // namespace

void CudaOps::rope(Stream& stream, const RopeArgs& args) const {
  check_args(args);
  if (args.query.is_empty()) return;
  CudaStream& own = cuda_stream(stream);
  with_element(args.query.dtype(), "rope", [&]<class T>(T*) {
    const Rotation<T> rotation{.query = data_of<T>(args.query),
                               .key = data_of<T>(args.key),
                               .positions = args.positions.i32(),
                               .cosine = args.cosine.f32(),
                               .sine = args.sine.f32(),
                               .num_positions = args.cosine.dim(0),
                               .num_query_heads = static_cast<int>(args.query.dim(1)),
                               .num_key_heads = static_cast<int>(args.key.dim(1)),
                               .half = static_cast<int>(args.query.dim(2) / 2),
                               .blocks_per_token = 1};
    constexpr int kWide = 16 / sizeof(T);
    const bool is_wide = rotation.half % kWide == 0 && are_elements_aligned<kWide>(rotation.query) &&
                         are_elements_aligned<kWide>(rotation.key) &&
                         are_elements_aligned<kWide>(rotation.cosine) &&
                         are_elements_aligned<kWide>(rotation.sine);
    is_wide ? launch<T, kWide>(own, rotation, args.query.dim(0))
            : launch<T, 1>(own, rotation, args.query.dim(0));
  });
}

}  // namespace aurora::cuda

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/gemm.cuh"

namespace aurora::cuda {
namespace {

cudaDataType blas_type(DType dtype) { return dtype == DType::kFloat32 ? CUDA_R_32F : CUDA_R_16BF; }

// cuBLAS is column-major: our row-major output [rows, out] is its [out, rows] = weight^T-transposed * input.
void blas_gemm(CudaStream& stream, const Gemm& product) {
  const float one = 1;
  const float beta = product.accumulate ? 1 : 0;
  const auto rows = static_cast<int>(product.num_rows);
  const auto in = static_cast<int>(product.in_width);
  const auto out = static_cast<int>(product.out_width);
  const cudaDataType type = blas_type(product.dtype);
  check_cublas(cublasGemmEx(stream.blas(), CUBLAS_OP_T, CUBLAS_OP_N, out, rows, in, &one, product.weight,
                            type, in, product.input, type, in, &beta, product.output,
                            blas_type(product.output_dtype), out, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
               "cublasGemmEx");
}

constexpr int kTile = 64;      // rows and columns of a block's output
constexpr int kDepth = 16;     // of one step along the inner dimension
constexpr int kPerThread = 4;  // each thread computes 4 x 4 elements
constexpr int kThreads = (kTile / kPerThread) * (kTile / kPerThread);

/// Stages rows [first, first + kTile) x [depth, depth + kDepth) transposed; beyond the edge zeros, which
/// leave every sum as it is.
template <class T>
__device__ void stage(float (&tile)[kDepth][kTile + 1], const T* matrix, std::int64_t first,
                      std::int64_t num_rows, std::int64_t depth, std::int64_t width) {
  for (int at = static_cast<int>(threadIdx.x); at < kTile * kDepth; at += kThreads) {
    const std::int64_t row = first + at / kDepth;
    const std::int64_t column = depth + at % kDepth;
    const bool is_inside = row < num_rows && column < width;
    tile[at % kDepth][at / kDepth] = is_inside ? to_float(matrix[row * width + column]) : 0.0F;
  }
}

template <class T, class Out>
__global__ void fixed_order_gemm_kernel(Gemm product) {
  __shared__ float inputs[kDepth][kTile + 1];
  __shared__ float weights[kDepth][kTile + 1];
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.y) * kTile;
  const std::int64_t first_column = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const int thread_row = static_cast<int>(threadIdx.x) / (kTile / kPerThread) * kPerThread;
  const int thread_column = static_cast<int>(threadIdx.x) % (kTile / kPerThread) * kPerThread;
  float sums[kPerThread][kPerThread] = {};
  for (std::int64_t depth = 0; depth < product.in_width; depth += kDepth) {
    stage(inputs, reinterpret_cast<const T*>(product.input), first_row, product.num_rows, depth,
          product.in_width);
    stage(weights, reinterpret_cast<const T*>(product.weight), first_column, product.out_width, depth,
          product.in_width);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      for (int i = 0; i < kPerThread; ++i) {
        for (int j = 0; j < kPerThread; ++j) {
          sums[i][j] = fmaf(inputs[k][thread_row + i], weights[k][thread_column + j], sums[i][j]);
        }
      }
    }
    __syncthreads();
  }
  auto* output = reinterpret_cast<Out*>(product.output);
  for (int i = 0; i < kPerThread; ++i) {
    for (int j = 0; j < kPerThread; ++j) {
      const std::int64_t row = first_row + thread_row + i;
      const std::int64_t column = first_column + thread_column + j;
      if (row >= product.num_rows || column >= product.out_width) continue;
      Out& element = output[row * product.out_width + column];
      element = from_float<Out>(product.accumulate ? sums[i][j] + to_float(element) : sums[i][j]);
    }
  }
}

void fixed_order_gemm(CudaStream& stream, const Gemm& product) {
  const dim3 grid(blocks_for(product.out_width, kTile), blocks_for(product.num_rows, kTile));
  with_element(product.dtype, "gemm", [&]<class T>(T*) {
    with_element(product.output_dtype, "gemm", [&]<class Out>(Out*) {
      fixed_order_gemm_kernel<T, Out><<<grid, kThreads, 0, stream.handle()>>>(product);
    });
  });
  check_launch("fixed_order_gemm");
}

}  // namespace

void gemm(CudaStream& stream, const Gemm& product, GemmOrder order) {
  if (product.num_rows == 0 || product.out_width == 0) return;
  // cuBLAS refuses an inner dimension of 0, of which our own kernel makes sums without terms.
  if (order == GemmOrder::kFixed || product.in_width == 0) return fixed_order_gemm(stream, product);
  blas_gemm(stream, product);
}

}  // namespace aurora::cuda

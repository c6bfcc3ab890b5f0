#include "kernels/cuda/cuda_stream.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <thread>

#include "kernels/cuda/check_cuda.h"
#include "kernels/cuda/small_copy.h"

namespace aurora::cuda {
namespace {

/// Smallest staging block: most arrays of a decode step fit.
constexpr std::size_t kSmallestBlock = 64 * 1024;

/// What NVIDIA recommends for Hopper (cublasSetWorkspace). cuBLAS would allocate as much by itself, but not
/// where a graph that is launched again finds it at the same place.
constexpr std::size_t kBlasWorkspaceBytes = std::size_t{32} << 20;

/// True when done; false when not yet; throws for errors of the work.
bool is_done(cudaError_t status, const char* what) {
  if (status == cudaErrorNotReady) return false;
  check_cuda(status, what);
  return true;
}

template <class Poll>
void wait_until(const Poll& poll, Deadline deadline, const char* what) {
  for (int polls = 0; !poll(); ++polls) {
    if (std::chrono::steady_clock::now() > deadline) {
      throw Error(ErrorKind::kTimeout, std::string(what) + " is not done at its deadline");
    }
    // The first microseconds are worth spinning for, later ones are not.
    if (polls > 1000) std::this_thread::yield();
  }
}

}  // namespace

CudaEvent::CudaEvent(unsigned flags) {
  check_cuda(cudaEventCreateWithFlags(&event_, flags), "cudaEventCreate");
}

CudaEvent::~CudaEvent() { cudaEventDestroy(event_); }

bool CudaEvent::is_complete() {
  if (fault_ == nullptr) return true;
  if (!is_done(cudaEventQuery(event_), "work before an event")) return false;
  fault_->rethrow();
  return true;
}

void CudaEvent::wait(Deadline deadline) {
  wait_until([&] { return is_complete(); }, deadline, "work before an event");
}

void CudaEvent::record_on(cudaStream_t stream, std::shared_ptr<DeviceFault> fault) {
  check_cuda(cudaEventRecord(event_, stream), "cudaEventRecord");
  fault_ = std::move(fault);
}

CudaStream::CudaStream() : fault_(std::make_shared<DeviceFault>()) {
  check_cuda(cudaGetDevice(&device_), "cudaGetDevice");
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  check_cublas(cublasCreate(&blas_), "cublasCreate");
  check_cublas(cublasSetStream(blas_, stream_), "cublasSetStream");
  check_cuda(cudaMalloc(&blas_workspace_, kBlasWorkspaceBytes), "workspace of cuBLAS");
  check_cublas(cublasSetWorkspace(blas_, blas_workspace_, kBlasWorkspaceBytes), "cublasSetWorkspace");
  void* counters = nullptr;
  check_cuda(cudaMalloc(&counters, kNumCounters * sizeof(std::uint32_t)), "counters of a stream");
  counters_ = static_cast<std::uint32_t*>(counters);
  check_cuda(cudaMemsetAsync(counters_, 0, kNumCounters * sizeof(std::uint32_t), stream_),
             "counters of a stream");
  const auto mode =
      static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
  check_cublas(cublasSetMathMode(blas_, mode), "cublasSetMathMode");
}

CudaStream::~CudaStream() {
  cudaStreamSynchronize(stream_);  // staging memory and the fault record are in use until then
  for (const auto& block : blocks_) {
    cudaEventDestroy(block->is_free);
    cudaFreeHost(block->host);
    cudaFree(block->device);
  }
  cudaFree(scratch_);
  cudaFree(counters_);
  cublasDestroy(blas_);
  cudaFree(blas_workspace_);
  cudaStreamDestroy(stream_);
}

void CudaStream::record(Event& event) {
  check_not_capturing("an event");
  auto* own = dynamic_cast<CudaEvent*>(&event);
  check(own != nullptr, "an event of another backend was given to the CUDA backend");
  own->record_on(stream_, fault_);
}

void CudaStream::wait(Event& event) {
  check_not_capturing("a wait");
  auto* own = dynamic_cast<CudaEvent*>(&event);
  check(own != nullptr, "an event of another backend was given to the CUDA backend");
  check_cuda(cudaStreamWaitEvent(stream_, own->handle()), "cudaStreamWaitEvent");
}

void CudaStream::synchronize(Deadline deadline) {
  check_not_capturing("a wait");
  wait_until([&] { return is_done(cudaStreamQuery(stream_), "work of a stream"); }, deadline,
             "work of a stream");
  fault_->rethrow();
}

void CudaStream::enter_device() const { check_cuda(cudaSetDevice(device_), "cudaSetDevice"); }

std::byte* CudaStream::scratch(std::size_t size_bytes) {
  if (size_bytes <= scratch_bytes_) return scratch_;
  cudaFree(scratch_);  // waits for the work that uses it
  scratch_ = nullptr;
  scratch_bytes_ = 0;
  void* memory = nullptr;
  check_cuda(cudaMalloc(&memory, size_bytes), "scratch of " + std::to_string(size_bytes) + " bytes");
  scratch_ = static_cast<std::byte*>(memory);
  scratch_bytes_ = size_bytes;
  return scratch_;
}

void CudaStream::check_not_capturing(const char* what) const {
  check(!is_capturing_, std::string(what) + " cannot be recorded in a graph");
}

// What other threads do meanwhile is no part of it and is not restricted.
void CudaStream::begin_capture() {
  check_not_capturing("another graph");
  check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  is_capturing_ = true;
}

cudaGraph_t CudaStream::end_capture() noexcept {
  is_capturing_ = false;
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream_, &graph);
  return graph;
}

StagingBlock& CudaStream::take_block(std::size_t size_bytes) {
  check_not_capturing("an array of the host");
  for (const auto& block : blocks_) {
    const bool fits = !block->is_taken && block->size_bytes >= size_bytes;
    if (fits && cudaEventQuery(block->is_free) == cudaSuccess) return *block;
  }
  auto block = std::make_unique<StagingBlock>();
  block->size_bytes = std::max(kSmallestBlock, std::bit_ceil(size_bytes));
  void* memory = nullptr;
  check_cuda(cudaHostAlloc(&memory, block->size_bytes, cudaHostAllocDefault), "staging memory");
  block->host = static_cast<std::byte*>(memory);
  check_cuda(cudaMalloc(&memory, block->size_bytes), "staging memory");
  block->device = static_cast<std::byte*>(memory);
  check_cuda(cudaEventCreateWithFlags(&block->is_free, cudaEventDisableTiming), "cudaEventCreate");
  blocks_.push_back(std::move(block));
  return *blocks_.back();
}

StagedArray::StagedArray(CudaStream& stream, std::span<const std::byte> bytes) : stream_(&stream) {
  if (bytes.empty()) return;
  block_ = &stream.take_block(bytes.size());
  block_->is_taken = true;
  std::memcpy(block_->host, bytes.data(), bytes.size());
  if (copy_small(stream.handle(), block_->device, block_->host, bytes.size())) return;
  check_cuda(
      cudaMemcpyAsync(block_->device, block_->host, bytes.size(), cudaMemcpyHostToDevice, stream.handle()),
      "copy of a host array");
}

StagedArray::~StagedArray() {
  if (block_ == nullptr) return;
  cudaEventRecord(block_->is_free, stream_->handle());
  block_->is_taken = false;
}

double seconds_between(Event& start, Event& end) {
  auto* first = dynamic_cast<CudaEvent*>(&start);
  auto* second = dynamic_cast<CudaEvent*>(&end);
  check(first != nullptr && second != nullptr, "an event of another backend was given to the CUDA backend");
  float milliseconds = 0;
  check_cuda(cudaEventElapsedTime(&milliseconds, first->handle(), second->handle()), "cudaEventElapsedTime");
  return static_cast<double>(milliseconds) * 1e-3;
}

CudaStream& cuda_stream(Stream& stream) {
  auto* own = dynamic_cast<CudaStream*>(&stream);
  check(own != nullptr, "a stream of another backend was given to the CUDA backend");
  own->enter_device();
  return *own;
}

}  // namespace aurora::cuda

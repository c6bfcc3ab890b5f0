// Streams and events of the CUDA backend.
//
// A stream owns a CUDA stream, a cuBLAS handle bound to it, the fault record of its kernels, and staging
// blocks for the host arrays that operations copy at submission. An event remembers the stream that recorded
// it, so that it can report that stream's faults.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/device_fault.h"

namespace aurora::cuda {

class CudaEvent final : public Event {
 public:
  /// `flags` are those of cudaEventCreateWithFlags.
  explicit CudaEvent(unsigned flags = cudaEventDisableTiming);
  ~CudaEvent() override;

  bool is_complete() override;
  void wait(Deadline deadline) override;

  void record_on(cudaStream_t stream, std::shared_ptr<DeviceFault> fault);
  cudaEvent_t handle() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
  std::shared_ptr<DeviceFault> fault_;  // null until first recorded
};

/// A pinned host block and a device block of the same size. In use by a StagedArray, and then by the device
/// until `is_free`.
struct StagingBlock {
  std::byte* host = nullptr;
  std::byte* device = nullptr;
  std::size_t size_bytes = 0;
  cudaEvent_t is_free = nullptr;
  bool is_taken = false;
};

class CudaStream final : public Stream {
 public:
  /// On the calling thread's current device. Throws kDevice when CUDA or cuBLAS fails.
  CudaStream();
  ~CudaStream() override;

  void record(Event& event) override;
  void wait(Event& event) override;
  void synchronize(Deadline deadline) override;

  cudaStream_t handle() const { return stream_; }
  /// Bound to this stream; float32 products are computed in float32, not in tf32.
  cublasHandle_t blas() const { return blas_; }
  /// Makes the stream's device the calling thread's: each thread starts with device 0.
  void enter_device() const;
  /// Device memory for one operation's intermediate results, until the next operation asks; grows, and is
  /// kept.
  std::byte* scratch(std::size_t size_bytes);
  /// Where `scratch` is now.
  const std::byte* scratch_address() const { return scratch_; }
  /// Between these two, work is recorded and not run. The result is null when the recording failed.
  void begin_capture();
  cudaGraph_t end_capture() noexcept;
  FaultSink faults() const { return fault_->sink(); }
  /// Words of device memory that are 0 between the kernels of this stream: those that count with them leave
  /// them so.
  static constexpr int kNumCounters = 2;
  std::uint32_t* counters() const { return counters_; }

 private:
  friend class StagedArray;

  void check_not_capturing(const char* what) const;
  StagingBlock& take_block(std::size_t size_bytes);

  int device_ = 0;
  cudaStream_t stream_ = nullptr;
  cublasHandle_t blas_ = nullptr;
  void* blas_workspace_ = nullptr;
  bool is_capturing_ = false;
  std::shared_ptr<DeviceFault> fault_;
  std::vector<std::unique_ptr<StagingBlock>> blocks_;
  std::uint32_t* counters_ = nullptr;
  std::byte* scratch_ = nullptr;
  std::size_t scratch_bytes_ = 0;
};

/// A host array copied to the device for the work that is submitted while this object lives.
class StagedArray {
 public:
  StagedArray(CudaStream& stream, std::span<const std::byte> bytes);
  ~StagedArray();
  StagedArray(const StagedArray&) = delete;
  StagedArray& operator=(const StagedArray&) = delete;

  /// Device memory; null for no bytes.
  template <class T>
  const T* as() const {
    return block_ == nullptr ? nullptr : reinterpret_cast<const T*>(block_->device);
  }

 private:
  CudaStream* stream_;
  StagingBlock* block_ = nullptr;
};

/// Throws kInternal when an event belongs to another backend, kDevice when one of them is not timed or not
/// complete.
double seconds_between(Event& start, Event& end);

/// The stream, with its device made the calling thread's. Throws kInternal when it belongs to another
/// backend.
CudaStream& cuda_stream(Stream& stream);

}  // namespace aurora::cuda

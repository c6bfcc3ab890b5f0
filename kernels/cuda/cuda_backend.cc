#include "kernels/cuda/cuda_backend.h"

#include <string>

#include "kernels/cuda/check_cuda.h"
#include "kernels/cuda/cuda_graph.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/profiler_ranges.h"
#include "kernels/cuda/small_copy.h"

namespace aurora {
namespace {

using cuda::check_cuda;

void release_device(void*, std::byte* data, std::size_t) noexcept { cudaFree(data); }
void release_host(void*, std::byte* data, std::size_t) noexcept { cudaFreeHost(data); }

void refuse_missing_device(int device) {
  const DeviceCount visible = visible_gpus();
  if (visible.num_devices == 0) {
    throw Error(ErrorKind::kDevice,
                "backend cuda: no GPU can be used: " + visible.why_none + "; use --backend cpu, or auto");
  }
  if (device < 0 || device >= visible.num_devices) {
    throw Error(ErrorKind::kDevice,
                "backend cuda: device " + std::to_string(device) + " was asked for, this process sees " +
                    std::to_string(visible.num_devices) + " GPUs (CUDA_VISIBLE_DEVICES restricts them)");
  }
}

/// Beside what is allocated through `allocate`: cuBLAS workspaces, split attention's partial results, kernels
/// that the driver loads on first use. Seen with nvidia-smi on an H200: 350 MB a process beyond its context
/// and communicators, with both example models.
constexpr std::int64_t kOverheadBytes = std::int64_t{512} << 20;

/// The first four bytes of a GPU's UUID, as nvidia-smi prints them: "GPU-1a2b3c4d".
std::string identity_text(const cudaUUID_t& identity) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text = "GPU-";
  for (int i = 0; i < 4; ++i) {
    const auto byte = static_cast<unsigned char>(identity.bytes[i]);
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const BackendOptions& options)
      : device_(options.device), has_graphs_(options.graphs), ops_(options.deterministic) {
    refuse_missing_device(device_);
    enter_device();
  }

  std::string_view name() const override { return "cuda"; }
  bool computes(DType dtype) const override { return dtype == DType::kFloat32 || dtype == DType::kBFloat16; }

  Buffer allocate(std::size_t size_bytes, MemorySpace space) override {
    if (size_bytes == 0) return {};
    enter_device();
    const bool is_device = space == MemorySpace::kDevice;
    void* data = nullptr;
    const cudaError_t status =
        is_device ? cudaMalloc(&data, size_bytes) : cudaHostAlloc(&data, size_bytes, cudaHostAllocDefault);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // an allocation that failed leaves the device in order
      throw Error(ErrorKind::kOutOfMemory, out_of_memory_text(size_bytes, is_device));
    }
    check_cuda(status, "allocation of " + std::to_string(size_bytes) + " bytes");
    return Buffer(static_cast<std::byte*>(data), size_bytes, is_device ? release_device : release_host,
                  nullptr);
  }

  std::unique_ptr<Stream> create_stream() override {
    enter_device();
    return std::make_unique<cuda::CudaStream>();
  }
  std::unique_ptr<Event> create_event() override {
    enter_device();
    return std::make_unique<cuda::CudaEvent>();
  }
  std::unique_ptr<Event> create_timed_event() override {
    enter_device();
    return std::make_unique<cuda::CudaEvent>(cudaEventDefault);
  }
  double seconds_between(Event& start, Event& end) override { return cuda::seconds_between(start, end); }

  void copy(Stream& stream, void* destination, const void* source, std::size_t size_bytes) override {
    if (size_bytes == 0) return;
    check(destination != nullptr && source != nullptr, "copy: a place of the copy is null");
    const cudaStream_t handle = cuda::cuda_stream(stream).handle();
    if (cuda::copy_small(handle, destination, source, size_bytes)) return;
    check_cuda(cudaMemcpyAsync(destination, source, size_bytes, cudaMemcpyDefault, handle),
               "cudaMemcpyAsync");
  }

  DeviceMemory memory() const override {
    enter_device();
    std::size_t free_bytes = 0;
    std::size_t total_bytes = 0;
    check_cuda(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
    cudaDeviceProp properties;
    check_cuda(cudaGetDeviceProperties(&properties, device_), "cudaGetDeviceProperties");
    return {.name = std::string(properties.name) + " " + identity_text(properties.uuid),
            .free_bytes = static_cast<std::int64_t>(free_bytes),
            .total_bytes = static_cast<std::int64_t>(total_bytes),
            .overhead_bytes = kOverheadBytes};
  }

  bool is_asynchronous() const override { return true; }
  bool has_graphs() const override { return has_graphs_; }
  std::unique_ptr<Graph> capture(Stream& stream, const std::function<void()>& submit) override {
    check(has_graphs_, "graphs are recorded by a backend that was made with them");
    return std::make_unique<cuda::CudaGraph>(cuda::cuda_stream(stream), submit);
  }

  void open_range(const RangeLabel& label) override { ranges_.open(label); }
  void close_range() override { ranges_.close(); }
  void name_range_group(std::size_t group, const std::string& name) override {
    ranges_.name_group(group, name);
  }

  const Ops& ops() const override { return ops_; }

 private:
  /// Each thread starts with device 0 as its own.
  void enter_device() const { check_cuda(cudaSetDevice(device_), "cudaSetDevice"); }

  static std::string out_of_memory_text(std::size_t size_bytes, bool is_device) {
    if (!is_device) return "the host has no " + std::to_string(size_bytes) + " bytes of pinned memory left";
    std::size_t free_bytes = 0;
    std::size_t total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    return "the GPU has no " + std::to_string(size_bytes) + " bytes left (" + std::to_string(free_bytes) +
           " of " + std::to_string(total_bytes) + " are free)";
  }

  int device_;
  const bool has_graphs_;
  const cuda::CudaOps ops_;
  cuda::ProfilerRanges ranges_;
};

}  // namespace

DeviceCount visible_gpus() {
  DeviceCount visible;
  const cudaError_t status = cudaGetDeviceCount(&visible.num_devices);
  if (status != cudaSuccess) {
    cudaGetLastError();  // not the next call's error
    return {.num_devices = 0, .why_none = cudaGetErrorString(status)};
  }
  if (visible.num_devices == 0) visible.why_none = "the driver shows none to this process";
  return visible;
}

std::unique_ptr<Backend> create_cuda_backend(const BackendOptions& options) {
  return std::make_unique<CudaBackend>(options);
}

}  // namespace aurora

#include "kernels/cpu/cpu_backend.h"

#include <cblas.h>

#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_stream.h"

namespace aurora {
namespace {

constexpr std::align_val_t kAlignment{256};  // promised by Buffer

void release(void*, std::byte* data, std::size_t) noexcept { ::operator delete(data, kAlignment); }

class CpuGraph final : public Graph {
 public:
  CpuGraph(cpu::CpuStream& stream, const std::function<void()>& submit)
      : work_(stream.record_work(submit)), generation_(Buffer::generation()) {}

  bool is_current() const override { return generation_ == Buffer::generation(); }
  void launch(Stream& stream) override {
    for (const std::function<void()>& piece : work_) cpu::cpu_stream(stream).submit(piece);
  }

 private:
  const std::vector<std::function<void()>> work_;
  const std::uint64_t generation_;
};

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendOptions& options)
      : stream_kind_(options.worker_streams ? cpu::CpuStream::Kind::kWorker : cpu::CpuStream::Kind::kInline),
        has_graphs_(options.graphs),
        ops_(options.deterministic) {
    if (options.num_threads < 1) {
      throw Error(ErrorKind::kInvalidArgument,
                  "num_threads is " + std::to_string(options.num_threads) + ", must be at least 1");
    }
    openblas_set_num_threads(options.num_threads);
  }

  std::string_view name() const override { return "cpu"; }
  bool computes(DType dtype) const override { return dtype == DType::kFloat32; }

  Buffer allocate(std::size_t size_bytes, MemorySpace) override {
    if (size_bytes == 0) return {};
    void* data = ::operator new(size_bytes, kAlignment, std::nothrow);
    if (data == nullptr) {
      throw Error(ErrorKind::kOutOfMemory, "the host has no " + std::to_string(size_bytes) + " bytes left");
    }
    return Buffer(static_cast<std::byte*>(data), size_bytes, release, nullptr);
  }

  std::unique_ptr<Stream> create_stream() override { return std::make_unique<cpu::CpuStream>(stream_kind_); }
  std::unique_ptr<Event> create_event() override { return std::make_unique<cpu::CpuEvent>(); }
  std::unique_ptr<Event> create_timed_event() override { return std::make_unique<cpu::TimedCpuEvent>(); }
  double seconds_between(Event& start, Event& end) override {
    return std::chrono::duration<double>(cpu::completion_time(end) - cpu::completion_time(start)).count();
  }

  void copy(Stream& stream, void* destination, const void* source, std::size_t size_bytes) override {
    if (size_bytes == 0) return;
    check(destination != nullptr && source != nullptr, "copy: a place of the copy is null");
    cpu::cpu_stream(stream).submit(
        [destination, source, size_bytes] { std::memmove(destination, source, size_bytes); });
  }

  /// Unknown: what the host can give depends on all its processes, and pages count when they are touched.
  DeviceMemory memory() const override { return {}; }

  bool is_asynchronous() const override { return stream_kind_ == cpu::CpuStream::Kind::kWorker; }
  bool has_graphs() const override { return has_graphs_; }
  std::unique_ptr<Graph> capture(Stream& stream, const std::function<void()>& submit) override {
    check(has_graphs_, "graphs are recorded by a backend that was made with them");
    return std::make_unique<CpuGraph>(cpu::cpu_stream(stream), submit);
  }

  const Ops& ops() const override { return ops_; }

 private:
  const cpu::CpuStream::Kind stream_kind_;
  const bool has_graphs_;
  const cpu::CpuOps ops_;
};

}  // namespace

std::unique_ptr<Backend> create_cpu_backend(const BackendOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace aurora

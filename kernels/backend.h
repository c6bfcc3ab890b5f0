// What computes: a device with memory, streams of ordered work, and events.
//
// Every operation of ops.h takes a `Stream` and may return before the work is done. Work of one stream runs
// in the order of submission; work of two streams is ordered by events only. The rule is the same on every
// backend: whoever reads a result on the host waits for an event first. The CPU backend has two kinds of
// stream: `kInline` runs the work inside the submitting call; `kWorker` hands it to a thread of its own, so
// that the submitting thread is free to drive exchanges meanwhile.
//
// Threads: one thread submits to a stream; events may be queried from any thread.
// Errors of asynchronous work surface at the next `Event::is_complete`, `Event::wait` or
// `Stream::synchronize`.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/dtype.h"
#include "kernels/error.h"

namespace aurora {

using Deadline = std::chrono::steady_clock::time_point;

enum class MemorySpace : std::uint8_t {
  kDevice,  // where kernels read and write
  kHost,    // where the host reads and writes, and the device can copy from (pinned on a GPU)
};

/// Owns one block of memory, aligned to 256 bytes. Movable, not copyable. Contents start undefined.
class Buffer {
 public:
  using Release = void (*)(void* context, std::byte* data, std::size_t size_bytes) noexcept;

  Buffer() = default;
  Buffer(std::byte* data, std::size_t size_bytes, Release release, void* context)
      : data_(data), size_bytes_(size_bytes), release_(release), context_(context) {
    if (data_ != nullptr) ++generation_;
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer moved(std::move(other));
    swap(moved);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (data_ == nullptr) return;
    ++generation_;
    if (release_ != nullptr) release_(context_, data_, size_bytes_);
  }

  std::byte* data() const { return data_; }
  std::size_t size_bytes() const { return size_bytes_; }

  /// While it stays the same, so does every buffer of the process: none has come or gone.
  static std::uint64_t generation() { return generation_; }

 private:
  inline static std::atomic<std::uint64_t> generation_{0};

  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
    std::swap(release_, other.release_);
    std::swap(context_, other.context_);
  }

  std::byte* data_ = nullptr;
  std::size_t size_bytes_ = 0;
  Release release_ = nullptr;
  void* context_ = nullptr;
};

/// A point in a stream's work. Complete before it is first recorded.
class Event {
 public:
  virtual ~Event() = default;
  virtual bool is_complete() = 0;
  /// Blocks until complete; throws kTimeout when `deadline` passes first.
  virtual void wait(Deadline deadline) = 0;
};

class Stream {
 public:
  virtual ~Stream() = default;
  /// Marks `event` to complete when all work submitted so far is done.
  virtual void record(Event& event) = 0;
  /// Work submitted from now on starts after `event` is complete; does not block the host.
  virtual void wait(Event& event) = 0;
  /// Blocks the host until the stream is empty; throws kTimeout when `deadline` passes first.
  virtual void synchronize(Deadline deadline) = 0;
};

/// Work of one stream that was recorded once and can be submitted again as a whole. It reads and writes the
/// memory with which it was recorded, and has the sizes of that time.
class Graph {
 public:
  virtual ~Graph() = default;
  /// Whether it may be launched: false once any buffer of the process has come or gone since the recording.
  virtual bool is_current() const = 0;
  /// On the stream that it was recorded on. The graph must outlive the work.
  virtual void launch(Stream& stream) = 0;
};

/// What a device has left. Ranks whose devices have one name share the memory.
struct DeviceMemory {
  std::string name;  // unique among all machines
  std::int64_t free_bytes = 0;
  std::int64_t total_bytes = 0;     // 0: unknown, so nothing can be said about what fits
  std::int64_t overhead_bytes = 0;  // that the backend itself takes on first use, by process and device
};

/// What a profiler shows of a stretch of the host's work, and of the device's work submitted in it.
struct RangeLabel {
  const char* name = "";    // lives as long as the process
  std::size_t group = 0;    // whose work it is; `name_range_group` names it
  std::int64_t number = 0;  // which of several alike: the layer
};

class Ops;  // ops.h

class Backend {
 public:
  virtual ~Backend() = default;

  /// "cpu" or "cuda".
  virtual std::string_view name() const = 0;
  /// Whether weights and activations may be of this type ("compute dtype" in ops.h).
  virtual bool computes(DType dtype) const = 0;
  /// Throws kOutOfMemory naming the bytes asked for. Zero bytes give an empty buffer.
  virtual Buffer allocate(std::size_t size_bytes, MemorySpace space) = 0;
  virtual std::unique_ptr<Stream> create_stream() = 0;
  virtual std::unique_ptr<Event> create_event() = 0;
  /// An event that also remembers when it completed, for `seconds_between`.
  virtual std::unique_ptr<Event> create_timed_event() = 0;
  /// Time on the device from the completion of `start` to that of `end`: timed events of this backend, both
  /// recorded and complete.
  virtual double seconds_between(Event& start, Event& end) = 0;
  /// Copies between any two places that this backend or the host owns.
  virtual void copy(Stream& stream, void* destination, const void* source, std::size_t size_bytes) = 0;
  /// Memory of kind kDevice.
  virtual DeviceMemory memory() const = 0;
  /// Whether streams run behind the host, which then learns from events alone when work was done.
  virtual bool is_asynchronous() const = 0;
  /// Whether `capture` is there: BackendOptions::graphs.
  virtual bool has_graphs() const = 0;
  /// Records what `submit` submits to `stream`, which does not run. Events, waits, allocations and, on a GPU,
  /// operations with spans of host memory cannot be recorded and throw; the stream is then as before.
  virtual std::unique_ptr<Graph> capture(Stream& stream, const std::function<void()>& submit) = 0;
  /// Ranges for profilers, nested within a thread. Nothing happens while no profiler looks.
  virtual void open_range(const RangeLabel& /*label*/) {}
  virtual void close_range() {}
  virtual void name_range_group(std::size_t /*group*/, const std::string& /*name*/) {}
  /// The operations; lives as long as the backend.
  virtual const Ops& ops() const = 0;
};

}  // namespace aurora

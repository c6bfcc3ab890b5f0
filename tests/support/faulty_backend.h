// A backend that does what another does, and fails where a test asks it to.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "kernels/backend.h"
#include "kernels/ops.h"

namespace aurora::test {

class FaultyBackend final : public Backend {
 public:
  /// Called before every allocation and every copy; what it throws is what the backend throws.
  std::function<void(std::size_t size_bytes)> before_allocate = [](std::size_t) {};
  std::function<void()> before_copy = [] {};

  explicit FaultyBackend(std::unique_ptr<Backend> real) : real_(std::move(real)) {}

  std::string_view name() const override { return real_->name(); }
  bool computes(DType dtype) const override { return real_->computes(dtype); }
  Buffer allocate(std::size_t size_bytes, MemorySpace space) override {
    before_allocate(size_bytes);
    return real_->allocate(size_bytes, space);
  }
  std::unique_ptr<Stream> create_stream() override { return real_->create_stream(); }
  std::unique_ptr<Event> create_event() override { return real_->create_event(); }
  std::unique_ptr<Event> create_timed_event() override { return real_->create_timed_event(); }
  double seconds_between(Event& start, Event& end) override { return real_->seconds_between(start, end); }
  void copy(Stream& stream, void* destination, const void* source, std::size_t size_bytes) override {
    before_copy();
    real_->copy(stream, destination, source, size_bytes);
  }
  DeviceMemory memory() const override { return real_->memory(); }
  bool is_asynchronous() const override { return real_->is_asynchronous(); }
  bool has_graphs() const override { return real_->has_graphs(); }
  std::unique_ptr<Graph> capture(Stream& stream, const std::function<void()>& submit) override {
    return real_->capture(stream, submit);
  }
  const Ops& ops() const override { return real_->ops(); }

 private:
  std::unique_ptr<Backend> real_;
};

}  // namespace aurora::test

// A stream-ordered transport without a GPU: what NCCL with two communicators is to a device, this is to the
// CPU backend's worker streams. Batches of "device" memory run on two streams of the transport's own in turn,
// each behind the event that it was given; the messages go through a second ThreadFabric, where those of one
// stream match in the order of posting and have no tags but the stream's. So a rank that leaves a batch out
// waits in vain, and one that forgets an event is too early. Host memory goes through the first, as ever.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/cpu/cpu_stream.h"
#include "kernels/error.h"
#include "runtime/transport/thread_transport.h"
#include "runtime/transport/transport.h"
#include "runtime/transport/wait.h"

namespace aurora::test {

class DeviceThreadTransport final : public Transport {
 public:
  /// Both outlive this transport. Events given to it are those of a CPU backend.
  DeviceThreadTransport(Transport& host, ThreadFabric& device_fabric)
      : host_(&host), device_(device_fabric.connect(host.rank())) {}

  std::string_view name() const override { return "device-threads"; }
  int rank() const override { return host_->rank(); }
  int num_ranks() const override { return host_->num_ranks(); }
  bool is_stream_ordered() const override { return true; }

  Ticket post(std::span<const Message> messages) override { return host_->post(messages); }
  Ticket post_on_device(std::span<const Message> messages, const StreamOrder& order) override {
    const std::size_t lane = ends_.size() % streams_.size();
    cpu::CpuStream& stream = *streams_[lane];
    if (order.after != nullptr) stream.wait(*order.after);
    if (order.begun != nullptr) stream.record(*order.begun);
    std::vector<Message> batch(messages.begin(), messages.end());
    for (Message& message : batch) message.tag = static_cast<std::uint32_t>(lane);
    stream.submit([this, batch] { exchange(batch); });
    ends_.push_back(std::make_unique<cpu::CpuEvent>());
    stream.record(*ends_.back());
    if (order.done != nullptr) {
      if (ends_.size() > 1) stream.wait(**(ends_.end() - 2));
      stream.record(*order.done);
    }
    return {kDeviceTicket + ends_.size() - 1};
  }
  bool test(Ticket ticket) override {
    if (ticket.id < kDeviceTicket) return host_->test(ticket);
    host_->progress();
    return ends_[ticket.id - kDeviceTicket]->is_complete();
  }
  void progress() override { host_->progress(); }
  void abort(std::string_view reason) noexcept override {
    host_->abort(reason);
    device_->abort(reason);
  }

  std::size_t num_device_batches() const { return ends_.size(); }

 private:
  /// Above every ticket of a host transport in a test: those count generations in the upper half.
  static constexpr std::uint64_t kDeviceTicket = std::uint64_t{1} << 60;

  void exchange(const std::vector<Message>& batch) {
    if (batch.empty()) return;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    // Both streams' threads use the fabric, one at a time.
    std::unique_lock lock(device_mutex_);
    const Ticket ticket = device_->post(batch);
    for (IdleBackoff backoff; !device_->test(ticket); lock.lock()) {
      lock.unlock();
      check(std::chrono::steady_clock::now() < deadline, "a batch on the device ends");
      backoff.pause();
    }
  }

  Transport* host_;
  std::unique_ptr<Transport> device_;
  std::vector<std::unique_ptr<cpu::CpuEvent>> ends_;
  std::mutex device_mutex_;
  // Last: their work uses the others.
  std::array<std::unique_ptr<cpu::CpuStream>, 2> streams_{
      std::make_unique<cpu::CpuStream>(cpu::CpuStream::Kind::kWorker),
      std::make_unique<cpu::CpuStream>(cpu::CpuStream::Kind::kWorker)};
};

}  // namespace aurora::test

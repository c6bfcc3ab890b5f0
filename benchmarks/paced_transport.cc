#include "benchmarks/paced_transport.h"

#include <algorithm>
#include <string>

#include "kernels/error.h"

namespace aurora::bench {

PacedPorts::PacedPorts(std::vector<double> ports_gbps)
    : ports_gbps_(std::move(ports_gbps)),
      sends_free_(ports_gbps_.size()),
      receives_free_(ports_gbps_.size()) {
  for (std::size_t rank = 0; rank < ports_gbps_.size(); ++rank) {
    if (ports_gbps_[rank] > 0) continue;
    throw Error(ErrorKind::kInvalidArgument, "the port of rank " + std::to_string(rank) + " has " +
                                                 std::to_string(ports_gbps_[rank]) +
                                                 " Gbit/s; it must have more than none");
  }
}

PacedPorts::Clock::duration PacedPorts::time_through(int rank, std::size_t size_bytes) const {
  const std::chrono::duration<double, std::nano> time(8 * static_cast<double>(size_bytes) /
                                                      ports_gbps_[static_cast<std::size_t>(rank)]);
  return std::chrono::duration_cast<Clock::duration>(time);
}

PacedPorts::End PacedPorts::post(int rank, const Message& message) {
  const bool is_send = message.direction == Direction::kSend;
  const int source = is_send ? rank : message.peer;
  const int destination = is_send ? message.peer : rank;
  const std::lock_guard lock(mutex_);
  std::deque<Waiting>& waiting = waiting_[{source, destination, message.tag}];
  if (waiting.empty() || waiting.front().direction == message.direction) {
    return waiting
        .emplace_back(Waiting{message.direction, std::make_shared<std::optional<Clock::time_point>>()})
        .end;
  }
  const End end = waiting.front().end;
  waiting.pop_front();
  Clock::time_point& send_free = sends_free_[static_cast<std::size_t>(source)];
  Clock::time_point& receive_free = receives_free_[static_cast<std::size_t>(destination)];
  const Clock::time_point start = std::max({Clock::now(), send_free, receive_free});
  send_free = start + time_through(source, message.size_bytes);
  receive_free = start + time_through(destination, message.size_bytes);
  *end = std::max(send_free, receive_free);
  return end;
}

bool PacedPorts::is_over(const End& end) {
  const std::lock_guard lock(mutex_);
  return end->has_value() && Clock::now() >= **end;
}

Ticket PacedTransport::post(std::span<const Message> messages) {
  const Ticket ticket = inner_->post(messages);
  std::vector<PacedPorts::End>& ends = open_[ticket.id];
  for (const Message& message : messages) ends.push_back(ports_->post(rank(), message));
  return ticket;
}

bool PacedTransport::test(Ticket ticket) {
  const auto found = open_.find(ticket.id);
  if (found == open_.end()) return inner_->test(ticket);
  std::vector<PacedPorts::End>& ends = found->second;
  std::erase_if(ends, [&](const PacedPorts::End& end) { return ports_->is_over(end); });
  if (!ends.empty()) {
    inner_->progress();
    return false;
  }
  if (!inner_->test(ticket)) return false;
  open_.erase(found);
  return true;
}

}  // namespace aurora::bench

// Some of a job's ranks as a transport of their own: rank i of the group is the i-th of its members.
//
// Messages between members travel over the job's transport under the same tags, so within a pair of members
// group and job must not use one tag at the same time. Progress, failures and aborts are the job's: a member
// that aborts ends all ranks. On a stream-ordered transport the members post the same batches in the same
// order; groups that share no rank need not agree with each other.
#pragma once

#include <vector>

#include "runtime/transport/transport.h"

namespace aurora {

class GroupTransport final : public Transport {
 public:
  /// `job` outlives the group. `members` are ranks of the job, ascending, this one among them; throws
  /// kInvalidArgument otherwise.
  GroupTransport(Transport& job, std::vector<int> members);

  std::string_view name() const override { return job_->name(); }
  int rank() const override { return rank_; }
  int num_ranks() const override { return static_cast<int>(members_.size()); }
  Ticket post(std::span<const Message> messages) override;
  bool is_stream_ordered() const override { return job_->is_stream_ordered(); }
  Ticket post_on_device(std::span<const Message> messages, const StreamOrder& order) override;
  bool test(Ticket ticket) override { return job_->test(ticket); }
  void progress() override { job_->progress(); }
  void abort(std::string_view reason) noexcept override { job_->abort(reason); }

 private:
  std::vector<Message> addressed_in_job(std::span<const Message> messages) const;

  Transport* job_;
  std::vector<int> members_;
  int rank_ = 0;
};

}  // namespace aurora

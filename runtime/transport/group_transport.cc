#include "runtime/transport/group_transport.h"

#include <algorithm>
#include <string>

#include "kernels/error.h"
#include "runtime/transport/message_check.h"

namespace aurora {

GroupTransport::GroupTransport(Transport& job, std::vector<int> members)
    : job_(&job), members_(std::move(members)) {
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorKind::kInvalidArgument, "rank " + std::to_string(job.rank()) + " of " +
                                                 std::to_string(job.num_ranks()) +
                                                 " cannot form a group: " + why);
  };
  for (std::size_t index = 0; index < members_.size(); ++index) {
    const bool is_in_job = members_[index] >= 0 && members_[index] < job.num_ranks();
    if (is_in_job && (index == 0 || members_[index - 1] < members_[index])) continue;
    refuse("member " + std::to_string(index) + " is rank " + std::to_string(members_[index]) +
           "; members are ranks of the job in ascending order");
  }
  const auto self = std::ranges::find(members_, job.rank());
  if (self == members_.end()) refuse("it is no member of it");
  rank_ = static_cast<int>(self - members_.begin());
}

std::vector<Message> GroupTransport::addressed_in_job(std::span<const Message> messages) const {
  check_messages(messages, rank_, num_ranks());
  std::vector<Message> addressed(messages.begin(), messages.end());
  for (Message& message : addressed) message.peer = members_[static_cast<std::size_t>(message.peer)];
  return addressed;
}

Ticket GroupTransport::post(std::span<const Message> messages) {
  return job_->post(addressed_in_job(messages));
}

Ticket GroupTransport::post_on_device(std::span<const Message> messages, const StreamOrder& order) {
  return job_->post_on_device(addressed_in_job(messages), order);
}

}  // namespace aurora

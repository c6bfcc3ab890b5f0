#include "runtime/transport/message_check.h"

#include <string>

#include "kernels/error.h"

namespace aurora {

std::string describe_ends(const Message& message, int rank) {
  const bool sends = message.direction == Direction::kSend;
  return "rank " + std::to_string(sends ? rank : message.peer) + " -> rank " +
         std::to_string(sends ? message.peer : rank) + ", tag " + std::to_string(message.tag);
}

namespace {

void check_message(const Message& message, std::size_t index, int rank, int num_ranks) {
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorKind::kInvalidArgument, "rank " + std::to_string(rank) + ": message " +
                                                 std::to_string(index) +
                                                 " of the batch cannot be posted: " + why);
  };
  if (message.peer < 0 || message.peer >= num_ranks) {
    refuse("peer " + std::to_string(message.peer) + " is not one of the " + std::to_string(num_ranks) +
           " ranks");
  }
  if (message.peer == rank) refuse("its peer is the rank itself; copy local data instead");
  if (message.tag >= kTagLimit) {
    refuse("tag " + std::to_string(message.tag) + " is not below " + std::to_string(kTagLimit));
  }
  if (message.size_bytes == 0) refuse("it has zero bytes; both ends skip empty messages");
  if (message.data == nullptr) refuse("it has no memory (null address)");
}

}  // namespace

void check_messages(std::span<const Message> messages, int rank, int num_ranks) {
  for (std::size_t index = 0; index < messages.size(); ++index) {
    check_message(messages[index], index, rank, num_ranks);
  }
}

}  // namespace aurora

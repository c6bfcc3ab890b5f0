// The control messages of the step protocol between rank 0 and all ranks.
//
// A turn begins with the command of the group's leader to all its ranks (rank_groups.h) and ends with every
// rank's reply to the leader. All of them take the steps that the command names, with tokens or without, so
// that every rank enters every exchange.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "runtime/executor/model_turn.h"
#include "runtime/executor/request_batcher.h"
#include "runtime/moe/moe_block.h"
#include "runtime/serialization.h"

namespace aurora {

/// Tags of the control plane; each lane of each model has three more for its exchanges, from
/// kFirstExchangeTag on.
enum ControlTag : std::uint32_t {
  kAgreeTag = 1,
  kPlanTag,
  kCommandTag,
  kReplyTag,
  kReportTag,
  kClockTag,
  kMemoryTag,
  kRelayTag,
  kFirstExchangeTag = 16,
};

/// A request on its way to the rank that will serve it.
struct RoutedRequest {
  std::int32_t rank = 0;
  std::int32_t model_index = 0;
  AssignedRequest request;
};

struct StepCommand {
  enum class Kind : std::uint8_t { kStep, kIdle, kStop };
  Kind kind = Kind::kIdle;
  std::vector<TurnShare> shares;        // by model, ascending
  std::vector<RoutedRequest> requests;  // new, of all ranks
};

/// What one rank did in one turn.
struct StepReply {
  std::vector<std::vector<RequestProgress>> progress;  // [model]
  std::vector<ExchangeStatistics> exchanges;           // [model]
};

void serialize(const DeviceMemory& memory, ByteWriter& writer);
DeviceMemory read_device_memory(ByteReader& reader);
void serialize(const StepCommand& command, ByteWriter& writer);
StepCommand read_step_command(ByteReader& reader);
void serialize(const StepReply& reply, ByteWriter& writer);
StepReply read_step_reply(ByteReader& reader);
void serialize(const GenerationRequest& request, ByteWriter& writer);
GenerationRequest read_generation_request(ByteReader& reader);
void serialize(const GenerationResult& result, ByteWriter& writer);
GenerationResult read_result(ByteReader& reader);

}  // namespace aurora

// The control messages of the step protocol between rank 0 and all ranks.
//
// A turn begins with the command of the group's leader to all its ranks (rank_groups.h) and ends with every
// rank's reply to the leader. All of them take the steps that the command names, with tokens or without, so
// that every rank enters every exchange. A move from one plan to the next is led by the same commands, so
// that all ranks do each of its acts at one turn.
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
#include "scheduler/plan_move.h"

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
  kFabricTag,
  kFabricExchangeTag,
  kMoveTag,
  kRelayTag,
  kFirstExchangeTag = 16,
};

/// A request on its way to the rank that will serve it.
struct RoutedRequest {
  std::int32_t rank = 0;
  std::int32_t model_index = 0;
  AssignedRequest request;
};

/// What a step does for a move to another plan (executor/expert_move.h).
struct MoveOrder {
  enum class Kind : std::uint8_t {
    kNone,
    kPrepare,   // take memory for what `plan` adds; whether that went well is in the reply
    kTransfer,  // let weights travel while the models step
    kSwitch,    // the new plan serves, this step already
    kAbandon,   // forget the move
  };
  Kind kind = Kind::kNone;
  // With kPrepare:
  std::string plan;  // its text (plan_io/plan_file.h)
  std::vector<ExpertTransfer> transfers;
  Bytes bytes_per_step = 0;
};

struct StepCommand {
  enum class Kind : std::uint8_t { kStep, kIdle, kStop };
  Kind kind = Kind::kIdle;
  std::vector<TurnShare> shares;        // by model, ascending
  std::vector<RoutedRequest> requests;  // new, of all ranks
  MoveOrder move;
  bool wants_traffic = false;  // the reply has what was routed since the last such turn
};

/// One rank's traffic since it was last asked, and the memory that its device has left.
struct TrafficWindow {
  std::vector<std::vector<std::byte>> models;  // [model] a TrafficRecorder
  DeviceMemory device;
};

/// What one rank did in one turn.
struct StepReply {
  std::vector<std::vector<RequestProgress>> progress;  // [model]
  std::vector<ExchangeStatistics> exchanges;           // [model]
  std::string move_failure;                            // why kPrepare failed, or empty
  double move_seconds = 0;                             // that the move held up the step
  TrafficWindow traffic;                               // when asked for
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

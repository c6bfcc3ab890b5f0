// The control messages of the step protocol between rank 0 and all ranks.
//
// A step begins with rank 0's command to all ranks and ends with every rank's reply to rank 0. All ranks step
// the models that the command names, with tokens or without, so that every rank enters every exchange.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "runtime/executor/request_batcher.h"
#include "runtime/moe/moe_block.h"
#include "runtime/serialization.h"

namespace aurora {

/// Tags of the control plane; the exchanges of model m use three tags from kFirstExchangeTag + 3 m on.
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
  std::vector<std::int32_t> active_models;  // to step, ascending
  std::vector<RoutedRequest> requests;      // new, of all ranks
};

/// What one rank did in one step.
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

}  // namespace aurora

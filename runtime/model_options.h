// How one model is served and how several are scheduled: the options that the engine hands down to its parts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "kernels/dtype.h"

namespace aurora {

/// One model to serve. Defaults here are the defaults of the configuration file.
struct ModelOptions {
  std::string name;                     // unique; the checkpoint folder's name when the file names none
  std::filesystem::path checkpoint;     // folder
  DType dtype = DType::kFloat32;        // of weights and compute
  std::int64_t max_batch_tokens = 512;  // tokens that one rank processes in one step, prefill chunks included
  std::int64_t max_batch_requests = 64;                  // requests running at once on one rank
  std::int64_t max_sequence_tokens = 0;                  // prompt + answer; 0: what the model allows
  std::int64_t kv_cache_bytes = std::int64_t{64} << 20;  // per rank
  std::int64_t kv_block_tokens = 16;
  double weight = 1;                     // share of the ranks' time, or of the ranks, beside other models
  std::filesystem::path traffic;         // past traffic to plan from; empty: none
  std::filesystem::path replay_routing;  // expert ids come from this routing record; empty: from the gate
};

enum class Schedule : std::uint8_t {
  kSerial,     // a step of one model, then a step of the other
  kColocated,  // phases of all models interleaved
  kTwoBatch,   // as kSerial, with the halves of each model's batch interleaved
  kExclusive,  // each model on ranks of its own
};

constexpr std::array kSchedules = {Schedule::kSerial, Schedule::kColocated, Schedule::kTwoBatch,
                                   Schedule::kExclusive};

/// Steps of one model between two commands of rank 0, at most. New requests join between turns, and answers
/// come out there.
inline constexpr std::int64_t kMostStepsOfTurn = 8;

/// As --schedule takes it.
constexpr std::string_view schedule_name(Schedule schedule) {
  constexpr std::array<std::string_view, kSchedules.size()> kNames = {"serial", "colocated", "two-batch",
                                                                      "exclusive"};
  return kNames[static_cast<std::size_t>(schedule)];
}

}  // namespace aurora

#include "runtime/engine_protocol.h"

namespace aurora {
namespace {

void write_sampling(const SamplingParams& sampling, ByteWriter& writer) {
  writer.write(sampling.temperature);
  writer.write(sampling.top_k);
  writer.write(sampling.top_p);
  writer.write(sampling.seed);
  writer.write(sampling.max_tokens);
  writer.write(sampling.ignore_eos);
  writer.write<std::uint64_t>(sampling.stop.size());
  for (const std::string& stop : sampling.stop) writer.write(stop);
}

SamplingParams read_sampling(ByteReader& reader) {
  SamplingParams sampling;
  sampling.temperature = reader.read<float>();
  sampling.top_k = reader.read<std::int32_t>();
  sampling.top_p = reader.read<float>();
  sampling.seed = reader.read<std::uint64_t>();
  sampling.max_tokens = reader.read<std::int32_t>();
  sampling.ignore_eos = reader.read<bool>();
  const auto num_stops = reader.read<std::uint64_t>();
  for (std::uint64_t i = 0; i < num_stops; ++i) sampling.stop.push_back(reader.read_string());
  return sampling;
}

void write_request(const RoutedRequest& routed, ByteWriter& writer) {
  writer.write(routed.rank);
  writer.write(routed.model_index);
  writer.write(routed.request.id);
  writer.write(routed.request.ordinal);
  writer.write(routed.request.prompt);
  write_sampling(routed.request.sampling, writer);
}

RoutedRequest read_request(ByteReader& reader) {
  RoutedRequest routed;
  routed.rank = reader.read<std::int32_t>();
  routed.model_index = reader.read<std::int32_t>();
  routed.request.id = reader.read<RequestId>();
  routed.request.ordinal = reader.read<std::uint64_t>();
  routed.request.prompt = reader.read_vector<TokenId>();
  routed.request.sampling = read_sampling(reader);
  return routed;
}

void write_progress(const RequestProgress& progress, ByteWriter& writer) {
  writer.write(progress.id);
  writer.write(progress.has_started);
  writer.write(progress.token_ids);
  writer.write(progress.text);
  writer.write(progress.is_finished);
  writer.write(progress.finish_reason);
}

RequestProgress read_progress(ByteReader& reader) {
  RequestProgress progress;
  progress.id = reader.read<RequestId>();
  progress.has_started = reader.read<bool>();
  progress.token_ids = reader.read_vector<TokenId>();
  progress.text = reader.read_string();
  progress.is_finished = reader.read<bool>();
  progress.finish_reason = reader.read<FinishReason>();
  return progress;
}

void write_move(const MoveOrder& move, ByteWriter& writer) {
  writer.write(move.kind);
  writer.write(move.plan);
  writer.write(move.transfers);
  writer.write(move.bytes_per_step);
}

MoveOrder read_move(ByteReader& reader) {
  MoveOrder move;
  move.kind = reader.read<MoveOrder::Kind>();
  move.plan = reader.read_string();
  move.transfers = reader.read_vector<ExpertTransfer>();
  move.bytes_per_step = reader.read<Bytes>();
  return move;
}

void write_window(const TrafficWindow& window, ByteWriter& writer) {
  writer.write<std::uint64_t>(window.models.size());
  for (const std::vector<std::byte>& model : window.models) writer.write(model);
  serialize(window.device, writer);
}

TrafficWindow read_window(ByteReader& reader) {
  TrafficWindow window;
  const auto num_models = reader.read<std::uint64_t>();
  for (std::uint64_t i = 0; i < num_models; ++i) window.models.push_back(reader.read_vector<std::byte>());
  window.device = read_device_memory(reader);
  return window;
}

}  // namespace

void serialize(const DeviceMemory& memory, ByteWriter& writer) {
  writer.write(memory.name);
  writer.write(memory.free_bytes);
  writer.write(memory.total_bytes);
  writer.write(memory.overhead_bytes);
}

DeviceMemory read_device_memory(ByteReader& reader) {
  DeviceMemory memory;
  memory.name = reader.read_string();
  memory.free_bytes = reader.read<std::int64_t>();
  memory.total_bytes = reader.read<std::int64_t>();
  memory.overhead_bytes = reader.read<std::int64_t>();
  return memory;
}

void serialize(const StepCommand& command, ByteWriter& writer) {
  writer.write(command.kind);
  writer.write(command.shares);
  writer.write<std::uint64_t>(command.requests.size());
  for (const RoutedRequest& routed : command.requests) write_request(routed, writer);
  write_move(command.move, writer);
  writer.write(command.wants_traffic);
}

StepCommand read_step_command(ByteReader& reader) {
  StepCommand command;
  command.kind = reader.read<StepCommand::Kind>();
  command.shares = reader.read_vector<TurnShare>();
  const auto num_requests = reader.read<std::uint64_t>();
  for (std::uint64_t i = 0; i < num_requests; ++i) command.requests.push_back(read_request(reader));
  command.move = read_move(reader);
  command.wants_traffic = reader.read<bool>();
  return command;
}

void serialize(const StepReply& reply, ByteWriter& writer) {
  writer.write<std::uint64_t>(reply.progress.size());
  for (std::size_t model = 0; model < reply.progress.size(); ++model) {
    writer.write<std::uint64_t>(reply.progress[model].size());
    for (const RequestProgress& progress : reply.progress[model]) write_progress(progress, writer);
    writer.write(reply.exchanges[model]);
  }
  writer.write(reply.move_failure);
  writer.write(reply.move_seconds);
  write_window(reply.traffic, writer);
}

StepReply read_step_reply(ByteReader& reader) {
  StepReply reply;
  const auto num_models = reader.read<std::uint64_t>();
  for (std::uint64_t model = 0; model < num_models; ++model) {
    auto& progress = reply.progress.emplace_back();
    const auto num_requests = reader.read<std::uint64_t>();
    for (std::uint64_t i = 0; i < num_requests; ++i) progress.push_back(read_progress(reader));
    reply.exchanges.push_back(reader.read<ExchangeStatistics>());
  }
  reply.move_failure = reader.read_string();
  reply.move_seconds = reader.read<double>();
  reply.traffic = read_window(reader);
  return reply;
}

void serialize(const GenerationRequest& request, ByteWriter& writer) {
  writer.write(request.id);
  writer.write(request.model);
  writer.write(request.prompt);
  writer.write(request.prompt_token_ids.has_value());
  writer.write(request.prompt_token_ids.value_or(std::vector<TokenId>()));
  write_sampling(request.sampling, writer);
}

GenerationRequest read_generation_request(ByteReader& reader) {
  GenerationRequest request;
  request.id = reader.read<RequestId>();
  request.model = reader.read_string();
  request.prompt = reader.read_string();
  const bool has_ids = reader.read<bool>();
  auto ids = reader.read_vector<TokenId>();
  if (has_ids) request.prompt_token_ids = std::move(ids);
  request.sampling = read_sampling(reader);
  return request;
}

void serialize(const GenerationResult& result, ByteWriter& writer) {
  writer.write(result.id);
  writer.write(result.model);
  writer.write(result.text);
  writer.write(result.token_ids);
  writer.write(result.finish_reason);
  writer.write(result.prompt_tokens);
  writer.write(result.timing);
  writer.write(result.error.has_value());
  writer.write(result.error.value_or(std::string()));
}

GenerationResult read_result(ByteReader& reader) {
  GenerationResult result;
  result.id = reader.read<RequestId>();
  result.model = reader.read_string();
  result.text = reader.read_string();
  result.token_ids = reader.read_vector<TokenId>();
  result.finish_reason = reader.read<FinishReason>();
  result.prompt_tokens = reader.read<std::int64_t>();
  result.timing = reader.read<RequestTiming>();
  const bool has_error = reader.read<bool>();
  std::string error = reader.read_string();
  if (has_error) result.error = std::move(error);
  return result;
}

}  // namespace aurora

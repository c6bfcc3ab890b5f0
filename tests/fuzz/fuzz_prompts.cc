// Prompt lines of any bytes: each is either a request that keeps the promises of the format or refused with a
// reason, and its answer is always a line of valid JSON.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "launch/batch_io.h"
#include "launch/prompt_line.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const aurora::PromptLine line = aurora::parse_prompt_line(text, 1, {"tiny-mixtral", "tiny-qwen3-moe"});
  aurora::GenerationResult result;
  result.model = line.request.model;
  result.error = line.error;
  const std::string record = aurora::output_record(line.custom_id, result);
  if (record.find('\n') != std::string::npos || !nlohmann::json::accept(record)) std::abort();
  if (line.error) {
    if (line.error->rfind("line 1: ", 0) != 0) std::abort();
    return 0;
  }
  const aurora::SamplingParams& sampling = line.request.sampling;
  if (sampling.max_tokens < 1 || sampling.top_k < 0) std::abort();
  if (!(sampling.temperature >= 0) || !(sampling.top_p > 0 && sampling.top_p <= 1)) std::abort();
  if (line.request.model != "tiny-mixtral" && line.request.model != "tiny-qwen3-moe") std::abort();
  if (line.request.prompt_token_ids && line.request.prompt_token_ids->empty()) std::abort();
  if (aurora::find_invalid_utf8(line.request.prompt)) std::abort();
  return 0;
}

#include "tests/support/engine_harness.h"

#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>

#include "tests/support/rank_threads.h"

namespace aurora::test {

std::filesystem::path model_folder(const std::string& name) {
  return std::filesystem::path(AURORA_SOURCE_DIR) / "launch" / "models" / name;
}

std::vector<ReferencePrompt> read_reference(const std::filesystem::path& folder) {
  std::ifstream file(folder / "reference.json");
  const auto json = nlohmann::json::parse(file);
  std::vector<ReferencePrompt> prompts;
  for (const auto& entry : json.at("prompts")) {
    ReferencePrompt prompt;
    prompt.prompt = entry.value("prompt", "");
    prompt.prompt_ids = entry.at("prompt_ids").get<std::vector<TokenId>>();
    prompt.greedy_ids = entry.at("greedy_ids").get<std::vector<TokenId>>();
    prompt.greedy_text = entry.value("greedy_text", "");
    prompt.min_top1_gap = entry.value("min_top1_gap", 0.0);
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

std::vector<GenerationRequest> ListFeed::take(std::size_t limit) {
  std::vector<GenerationRequest> taken;
  while (next_ < requests_.size() && taken.size() < std::min(limit, per_call_))
    taken.push_back(requests_[next_++]);
  return taken;
}

void ListFeed::on_text(RequestId id, const std::string& text, const std::vector<TokenId>& /*token_ids*/) {
  streamed_[id] += text;
}

void ListFeed::on_finished(GenerationResult result) { results_[result.id] = std::move(result); }

ModelOptions model_options(const std::filesystem::path& folder) {
  ModelOptions options;
  options.name = folder.filename().string();
  options.checkpoint = folder;
  return options;
}

EngineOptions example_options() {
  EngineOptions options;
  options.models = {model_options(model_folder("tiny-mixtral")),
                    model_options(model_folder("tiny-qwen3-moe"))};
  return options;
}

EngineRun run_engine(const EngineOptions& options, int num_ranks, std::vector<GenerationRequest> requests,
                     std::size_t per_call, const BackendChoice& choice) {
  ListFeed feed(std::move(requests), per_call);
  EngineRun run;
  run_ranks(num_ranks, [&](Transport& transport) {
    BackendOptions backend_options = choice.options;
    backend_options.deterministic = options.deterministic;
    const auto backend = create_backend(choice.name, backend_options);
    Engine engine(options, transport, *backend);
    engine.run(transport.rank() == 0 ? &feed : nullptr);
    if (transport.rank() != 0) return;
    run.report = engine.report();
    run.traffic = engine.traffic();
    if (options.record_trace) run.trace = engine.trace_json();
  });
  run.results = feed.results();
  run.streamed_text = feed.streamed_text();
  return run;
}

std::vector<GenerationRequest> reference_requests(std::map<RequestId, ReferencePrompt>& expected) {
  std::vector<GenerationRequest> requests;
  for (const char* name : {"tiny-mixtral", "tiny-qwen3-moe"}) {
    for (ReferencePrompt& prompt : read_reference(model_folder(name))) {
      GenerationRequest request;
      request.id = requests.size();
      request.model = name;
      request.prompt = prompt.prompt;
      request.sampling.max_tokens = static_cast<std::int32_t>(prompt.greedy_ids.size());
      request.sampling.ignore_eos = true;
      expected[request.id] = std::move(prompt);
      requests.push_back(std::move(request));
    }
  }
  return requests;
}

}  // namespace aurora::test

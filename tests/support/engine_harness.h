// Runs whole engines in tests: a feed from a list, models with their references, ranks as threads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "kernels/backend_registry.h"
#include "runtime/engine.h"
#include "runtime/request.h"

namespace aurora::test {

/// The repository's folder of example models.
std::filesystem::path model_folder(const std::string& name);

/// One prompt of a reference.json.
struct ReferencePrompt {
  std::string prompt;
  std::vector<TokenId> prompt_ids;
  std::vector<TokenId> greedy_ids;
  std::string greedy_text;
  double min_top1_gap = 0;
};
std::vector<ReferencePrompt> read_reference(const std::filesystem::path& folder);

/// Hands out a list of requests, all at once or a few per call, and keeps the answers by id.
class ListFeed : public RequestFeed {
 public:
  explicit ListFeed(std::vector<GenerationRequest> requests, std::size_t per_call = SIZE_MAX)
      : requests_(std::move(requests)), per_call_(per_call) {}

  std::vector<GenerationRequest> take(std::size_t limit) override;
  bool is_exhausted() override { return next_ == requests_.size(); }
  void on_text(RequestId id, const std::string& text, const std::vector<TokenId>& token_ids) override;
  void on_finished(GenerationResult result) override;

  const std::map<RequestId, GenerationResult>& results() const { return results_; }
  /// Text as it was handed out piece by piece.
  const std::map<RequestId, std::string>& streamed_text() const { return streamed_; }

 private:
  std::vector<GenerationRequest> requests_;
  std::size_t per_call_;
  std::size_t next_ = 0;
  std::map<RequestId, GenerationResult> results_;
  std::map<RequestId, std::string> streamed_;
};

/// What a run left behind on rank 0.
struct EngineRun {
  std::map<RequestId, GenerationResult> results;
  std::map<RequestId, std::string> streamed_text;
  EngineReport report;
  std::vector<ModelTraffic> traffic;
  std::string trace;
};

/// Options for the two example models.
EngineOptions example_options();
ModelOptions model_options(const std::filesystem::path& folder);

/// What computes. Whether it is deterministic, the engine's options say.
struct BackendChoice {
  std::string name = "cpu";
  BackendOptions options;
};

/// Runs an engine on each of `num_ranks` threads.
EngineRun run_engine(const EngineOptions& options, int num_ranks, std::vector<GenerationRequest> requests,
                     std::size_t per_call = SIZE_MAX, const BackendChoice& choice = {});

/// Greedy requests for all prompts of the example models' references, ids counting up; `expected` gets the
/// ids.
std::vector<GenerationRequest> reference_requests(std::map<RequestId, ReferencePrompt>& expected);

}  // namespace aurora::test

// The batch door: prompts come in as JSON lines, answers leave as JSON lines. A RequestFeed for rank 0's
// engine.
//
// From a regular file, lines are read as the engine asks for requests and answers are written in the order of
// the lines. From standard input or a pipe, a thread of its own reads, so that the engine never waits for a
// line. Without a prompts file answers are written as they finish.
//
// A line that is refused is answered with an error record in its place and costs nothing but itself.
// Threads: everything is called from the engine's thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "launch/output_file.h"
#include "launch/prompt_line.h"
#include "runtime/request.h"

namespace aurora {

struct BatchOptions {
  std::filesystem::path prompts;  // empty: standard input
  std::filesystem::path output;   // empty: standard output
  std::vector<std::string> models;
};

/// How far the batch is.
struct BatchProgress {
  std::int64_t num_prompts = 0;     // lines read, refused ones included
  std::int64_t total_prompts = -1;  // lines of the file; -1: unknown
  std::int64_t num_answered = 0;    // of num_prompts, failed ones included
  std::int64_t num_failed = 0;
  std::int64_t num_tokens = 0;  // generated
  std::string first_failure;    // the error of the first line that failed
};

class BatchFeed final : public RequestFeed {
 public:
  /// Opens prompts and output. Throws kNotFound or kIo naming the file.
  explicit BatchFeed(const BatchOptions& options);
  ~BatchFeed() override;

  /// Called whenever something changed, and at least at every `take`.
  void observe(std::function<void(const BatchProgress&)> observer) { observer_ = std::move(observer); }

  std::vector<GenerationRequest> take(std::size_t limit) override;
  bool is_exhausted() override;
  void on_text(RequestId id, const std::string& text, const std::vector<TokenId>& token_ids) override;
  void on_finished(GenerationResult result) override;

  /// After a run that went well: the output gets its final name. Throws kIo.
  void commit();
  /// After a run that failed: writes what was answered, in order as far as it goes, and leaves it in the
  /// partial file, whose path it returns (empty for standard output or when nothing was answered).
  std::filesystem::path keep_partial() noexcept;

  const BatchProgress& progress() const { return progress_; }

 private:
  class Source;
  struct Asked {
    std::int64_t line = 0;
    std::string custom_id;
  };

  void refuse(const PromptLine& line, std::int64_t sequence);
  void write_record(std::int64_t sequence, std::string record);
  void count_failure(const std::string& error);
  void notify();

  std::vector<std::string> models_;
  std::unique_ptr<Source> source_;
  OutputFile output_;
  bool is_ordered_;
  std::function<void(const BatchProgress&)> observer_;
  BatchProgress progress_;
  std::int64_t num_lines_ = 0;                      // read, blank ones included
  std::map<std::string, std::int64_t> line_of_id_;  // custom ids seen so far
  std::map<RequestId, Asked> asked_;                // by id, which is the line's place among the prompts
  std::map<std::int64_t, std::string> waiting_;     // records that an earlier line's answer holds back
  std::int64_t next_written_ = 0;
};

/// The output record of an answer or a failed request, without line end.
std::string output_record(const std::string& custom_id, const GenerationResult& result);

}  // namespace aurora

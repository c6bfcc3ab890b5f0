#include "launch/batch_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>

#include "kernels/error.h"
#include "launch/line_reader.h"

namespace aurora {
namespace {

/// Lines that a live source reads ahead of the engine, and their bytes.
constexpr std::size_t kMaxAheadLines = 4096;
constexpr std::size_t kMaxAheadBytes = std::size_t{64} << 20;
/// Lines that one `take` looks at, so that a file of refused lines does not hold the engine up.
constexpr int kMaxLinesPerTake = 256;
/// A line of nothing but these is no prompt.
constexpr std::string_view kBlanks = " \t\r\v\f";

/// Owns a file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ > STDERR_FILENO) close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

Descriptor open_prompts(const std::filesystem::path& path) {
  if (path.empty()) return Descriptor(STDIN_FILENO);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    struct stat status {};
    if (fstat(fd, &status) == 0 && S_ISDIR(status.st_mode)) {
      close(fd);
      throw Error(ErrorKind::kIo, "cannot read prompts from " + path.string() + ": it is a folder");
    }
    return Descriptor(fd);
  }
  throw Error(errno == ENOENT ? ErrorKind::kNotFound : ErrorKind::kIo,
              "cannot read prompts from " + path.string() + ": " + std::strerror(errno));
}

bool is_regular(int fd) {
  struct stat status {};
  return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

bool is_blank(const Line& line) {
  return !line.is_overlong && line.text.find_first_not_of(kBlanks) == std::string::npos;
}

/// Counts the lines of a regular file that are not blank, without moving its position. -1 when it cannot be
/// read.
std::int64_t count_prompts(int fd) {
  std::array<char, std::size_t{64} << 10> block;
  std::int64_t count = 0;
  off_t offset = 0;
  bool is_counted = false;  // whether the current line is
  while (true) {
    const ssize_t num_bytes = pread(fd, block.data(), block.size(), offset);
    if (num_bytes < 0) return -1;
    if (num_bytes == 0) return count;
    offset += num_bytes;
    for (const char c : std::string_view(block.data(), static_cast<std::size_t>(num_bytes))) {
      if (c == '\n') {
        is_counted = false;
      } else if (!is_counted && kBlanks.find(c) == std::string_view::npos) {
        is_counted = true;
        ++count;
      }
    }
  }
}

}  // namespace

/// Hands out lines without blocking.
class BatchFeed::Source {
 public:
  explicit Source(const std::filesystem::path& path)
      : name_(path.empty() ? "standard input" : path.string()),
        input_(open_prompts(path)),
        is_live_(!is_regular(input_.fd())) {
    if (!is_live_) {
      reader_.emplace(input_.fd(), -1, name_, kMaxPromptLineBytes);
      total_ = count_prompts(input_.fd());
      return;
    }
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw Error(ErrorKind::kIo, "cannot create a pipe for " + name_);
    cancel_read_ = Descriptor(ends[0]);
    cancel_write_ = Descriptor(ends[1]);
    reader_.emplace(input_.fd(), cancel_read_.fd(), name_, kMaxPromptLineBytes);
    thread_ = std::thread([this] { read_ahead(); });
  }

  ~Source() {
    if (!thread_.joinable()) return;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      is_cancelled_ = true;
    }
    const char byte = 0;
    [[maybe_unused]] const ssize_t written = ::write(cancel_write_.fd(), &byte, 1);
    has_room_.notify_all();
    thread_.join();
  }

  std::int64_t total() const { return total_; }

  /// The next line that is there; nothing when none has arrived or none will.
  std::optional<Line> next() {
    if (!is_live_) {
      if (is_at_end_) return std::nullopt;
      std::optional<Line> line = reader_->next();
      is_at_end_ = !line.has_value();
      return line;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    if (lines_.empty()) {
      if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
      return std::nullopt;
    }
    Line line = std::move(lines_.front());
    lines_.pop_front();
    ahead_bytes_ -= line.text.size();
    has_room_.notify_one();
    return line;
  }

  bool is_exhausted() {
    if (!is_live_) return is_at_end_;
    const std::lock_guard<std::mutex> lock(mutex_);
    return is_at_end_ && lines_.empty() && !failure_;
  }

 private:
  void read_ahead() {
    std::exception_ptr failure;
    try {
      while (std::optional<Line> line = reader_->next()) {
        std::unique_lock<std::mutex> lock(mutex_);
        has_room_.wait(lock, [this] {
          return is_cancelled_ || (lines_.size() < kMaxAheadLines && ahead_bytes_ < kMaxAheadBytes);
        });
        if (is_cancelled_) break;
        ahead_bytes_ += line->text.size();
        lines_.push_back(std::move(*line));
      }
    } catch (...) {
      failure = std::current_exception();
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    failure_ = failure;
    is_at_end_ = true;
  }

  std::string name_;
  Descriptor input_;
  bool is_live_;
  std::optional<LineReader> reader_;
  std::int64_t total_ = -1;
  bool is_at_end_ = false;  // under mutex_ when live, as everything below

  Descriptor cancel_read_;
  Descriptor cancel_write_;
  std::mutex mutex_;
  std::condition_variable has_room_;
  std::deque<Line> lines_;
  std::size_t ahead_bytes_ = 0;
  bool is_cancelled_ = false;
  std::exception_ptr failure_;
  std::thread thread_;
};

BatchFeed::BatchFeed(const BatchOptions& options)
    : models_(options.models),
      source_(std::make_unique<Source>(options.prompts)),
      output_(options.output),
      is_ordered_(!options.prompts.empty()) {
  progress_.total_prompts = source_->total();
}

BatchFeed::~BatchFeed() = default;

std::vector<GenerationRequest> BatchFeed::take(std::size_t limit) {
  std::vector<GenerationRequest> requests;
  for (int looked_at = 0; looked_at < kMaxLinesPerTake && requests.size() < limit; ++looked_at) {
    std::optional<Line> line = source_->next();
    if (!line) break;
    ++num_lines_;
    if (is_blank(*line)) continue;
    PromptLine prompt = line->is_overlong ? overlong_prompt_line(num_lines_)
                                          : parse_prompt_line(line->text, num_lines_, models_);
    const std::int64_t sequence = progress_.num_prompts++;
    const auto [first, is_new] = line_of_id_.emplace(prompt.custom_id, num_lines_);
    if (!is_new && !prompt.error) {
      prompt.error = "line " + std::to_string(num_lines_) + ": custom_id \"" + prompt.custom_id +
                     "\" is that of line " + std::to_string(first->second) + " already";
    }
    if (prompt.error) {
      refuse(prompt, sequence);
      continue;
    }
    prompt.request.id = static_cast<RequestId>(sequence);
    asked_[prompt.request.id] = {num_lines_, std::move(prompt.custom_id)};
    requests.push_back(std::move(prompt.request));
  }
  notify();
  return requests;
}

bool BatchFeed::is_exhausted() { return source_->is_exhausted(); }

void BatchFeed::on_text(RequestId, const std::string&, const std::vector<TokenId>& token_ids) {
  progress_.num_tokens += static_cast<std::int64_t>(token_ids.size());
  notify();
}

void BatchFeed::on_finished(GenerationResult result) {
  const auto found = asked_.find(result.id);
  check(found != asked_.end(), "a finished request was asked for and not finished before");
  const Asked asked = std::move(found->second);
  asked_.erase(found);
  if (result.error) {
    result.error = "line " + std::to_string(asked.line) + ": " + *result.error;
    count_failure(*result.error);
  }
  ++progress_.num_answered;
  write_record(static_cast<std::int64_t>(result.id), output_record(asked.custom_id, result));
  notify();
}

void BatchFeed::refuse(const PromptLine& line, std::int64_t sequence) {
  GenerationResult result;
  result.model = line.request.model;
  result.error = line.error;
  ++progress_.num_answered;
  count_failure(*line.error);
  write_record(sequence, output_record(line.custom_id, result));
}

void BatchFeed::count_failure(const std::string& error) {
  if (progress_.num_failed++ == 0) progress_.first_failure = error;
}

void BatchFeed::write_record(std::int64_t sequence, std::string record) {
  record += '\n';
  if (!is_ordered_) {
    output_.write(record);
    output_.flush();
    return;
  }
  waiting_.emplace(sequence, std::move(record));
  // Everything before next_written_ is written; waiting_ holds what is after it.
  while (!waiting_.empty() && waiting_.begin()->first == next_written_) {
    output_.write(waiting_.begin()->second);
    waiting_.erase(waiting_.begin());
    ++next_written_;
  }
  output_.flush();  // so that a process that is killed loses nothing
}

void BatchFeed::notify() {
  if (observer_) observer_(progress_);
}

void BatchFeed::commit() {
  check(waiting_.empty() && asked_.empty(), "every prompt was answered");
  output_.commit();
}

std::filesystem::path BatchFeed::keep_partial() noexcept {
  try {
    for (const auto& [sequence, record] : waiting_) output_.write(record);
    waiting_.clear();
    output_.flush();
    if (progress_.num_answered == 0 || output_.path().empty()) return {};
    output_.keep_partial();
    return output_.partial_path();
  } catch (...) {
    return {};  // the disk may be what failed
  }
}

std::string output_record(const std::string& custom_id, const GenerationResult& result) {
  nlohmann::ordered_json record;
  record["custom_id"] = custom_id;
  if (!result.model.empty()) record["model"] = result.model;
  if (result.error) {
    record["error"] = *result.error;
  } else {
    const auto completion_tokens = static_cast<std::int64_t>(result.token_ids.size());
    record["text"] = result.text;
    record["token_ids"] = result.token_ids;
    record["finish_reason"] = finish_reason_name(result.finish_reason);
    record["usage"] = {{"prompt_tokens", result.prompt_tokens},
                       {"completion_tokens", completion_tokens},
                       {"total_tokens", result.prompt_tokens + completion_tokens}};
    record["timing"] = {{"queued", result.timing.queued},
                        {"first_token", result.timing.first_token},
                        {"total", result.timing.total}};
  }
  return record.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace aurora

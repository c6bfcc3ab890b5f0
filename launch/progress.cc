#include "launch/progress.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>

namespace aurora {
namespace {

// A bar moves smoothly at ten frames a second; a log is read later, and a line every ten seconds is enough.
constexpr std::chrono::milliseconds kFrame(100);
constexpr std::chrono::milliseconds kLogInterval(10000);
constexpr int kBarWidth = 30;

}  // namespace

ProgressDisplay::ProgressDisplay(bool is_terminal)
    : is_terminal_(is_terminal), next_(start_ + (is_terminal ? kFrame : kLogInterval)) {}

ProgressDisplay::~ProgressDisplay() { clear(); }

void ProgressDisplay::update(const BatchProgress& progress) {
  const Clock::time_point now = Clock::now();
  if (now < next_) return;
  next_ = now + (is_terminal_ ? kFrame : kLogInterval);
  const std::string text = progress_text(progress, std::chrono::duration<double>(now - start_).count());
  if (!is_terminal_) {
    spdlog::info("{}", text);
    return;
  }
  std::fprintf(stderr, "\r\033[K%s %s", progress_bar(progress, kBarWidth).c_str(), text.c_str());
  std::fflush(stderr);
  is_drawn_ = true;
}

void ProgressDisplay::clear() {
  if (!is_drawn_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  is_drawn_ = false;
}

std::string progress_text(const BatchProgress& progress, double seconds) {
  const bool is_total_known = progress.total_prompts >= 0;
  std::string text =
      fmt::format("{} of {} prompts, {} tokens", progress.num_answered,
                  is_total_known ? progress.total_prompts : progress.num_prompts, progress.num_tokens);
  if (seconds > 0)
    text += fmt::format(", {:.1f} tokens/s", static_cast<double>(progress.num_tokens) / seconds);
  if (progress.num_failed > 0) text += fmt::format(", {} failed", progress.num_failed);
  return text;
}

std::string progress_bar(const BatchProgress& progress, int width) {
  if (progress.total_prompts <= 0) return "";
  const std::int64_t answered = std::min(progress.num_answered, progress.total_prompts);
  const auto filled = static_cast<std::size_t>(answered * width / progress.total_prompts);
  std::string bar(static_cast<std::size_t>(width), '.');
  std::fill_n(bar.begin(), filled, '#');
  return fmt::format("[{}]", bar);
}

}  // namespace aurora

#include "launch/logging.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

namespace aurora {
namespace {

thread_local int t_rank = 0;  // ranks may be threads of one process

class RankFlag final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg&, const std::tm&, spdlog::memory_buf_t& destination) override {
    const std::string text = std::to_string(t_rank);
    destination.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<RankFlag>(); }
};

}  // namespace

void start_logging(const LogOptions& options) {
  auto logger = spdlog::stderr_color_mt("aurora");
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  // On a terminal a line takes the place of the progress bar, which draws itself anew.
  const std::string clear_bar = isatty(STDERR_FILENO) ? "\r\033[K" : "";
  formatter->add_flag<RankFlag>('*').set_pattern(clear_bar + "[%H:%M:%S.%e] [%^%l%$] [rank %*] %v");
  logger->set_formatter(std::move(formatter));
  auto level = spdlog::level::from_str(options.level);
  if (options.quiet) level = std::max(level, spdlog::level::warn);
  logger->set_level(level);
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
}

void set_log_rank(int rank) { t_rank = rank; }

}  // namespace aurora

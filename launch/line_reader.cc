#include "launch/line_reader.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "kernels/error.h"

namespace aurora {
namespace {

constexpr std::size_t kBlockBytes = std::size_t{64} << 10;

}  // namespace

LineReader::LineReader(int fd, int cancel_fd, std::string name, std::size_t max_line_bytes)
    : fd_(fd), cancel_fd_(cancel_fd), name_(std::move(name)), max_line_bytes_(max_line_bytes) {}

std::optional<Line> LineReader::next() {
  Line line;
  bool has_bytes = false;
  while (true) {
    if (position_ == block_.size() && !fill()) {
      if (!has_bytes) return std::nullopt;
      break;
    }
    has_bytes = true;
    const std::size_t end = block_.find('\n', position_);
    const std::size_t stop = std::min(end, block_.size());
    if (!line.is_overlong) line.text.append(block_, position_, stop - position_);
    if (line.text.size() > max_line_bytes_) {
      line.is_overlong = true;
      line.text = std::string();
    }
    position_ = stop;
    if (end != std::string::npos) {
      ++position_;
      break;
    }
  }
  if (!line.text.empty() && line.text.back() == '\r') line.text.pop_back();
  return line;
}

bool LineReader::fill() {
  while (true) {
    if (cancel_fd_ >= 0) {
      pollfd watched[2] = {{fd_, POLLIN, 0}, {cancel_fd_, POLLIN, 0}};
      if (poll(watched, 2, -1) < 0 && errno != EINTR) {
        throw Error(ErrorKind::kIo, "cannot wait for " + name_ + ": " + std::strerror(errno));
      }
      if (watched[1].revents != 0) return false;
      if (watched[0].revents == 0) continue;
    }
    block_.resize(kBlockBytes);
    position_ = 0;
    const ssize_t num_bytes = read(fd_, block_.data(), block_.size());
    if (num_bytes < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    block_.resize(num_bytes < 0 ? 0 : static_cast<std::size_t>(num_bytes));
    if (num_bytes < 0) throw Error(ErrorKind::kIo, "cannot read " + name_ + ": " + std::strerror(errno));
    return num_bytes > 0;
  }
}

}  // namespace aurora

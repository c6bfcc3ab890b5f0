// Lines of a file or a pipe, one at a time, with a bound on their length.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace aurora {

struct Line {
  std::string text;  // without its line end ("\n" or "\r\n"); empty when overlong
  bool is_overlong = false;
};

/// Reads from a file descriptor that somebody else closes. A last line without a line end counts.
class LineReader {
 public:
  /// `cancel_fd` (or -1): once it is readable, `next` returns nothing even while it waits for input. `name`
  /// is used in messages.
  LineReader(int fd, int cancel_fd, std::string name, std::size_t max_line_bytes);

  /// The next line; nothing at the end of input or when cancelled. Blocks while a pipe is silent. Throws kIo.
  std::optional<Line> next();

 private:
  /// False at the end of input and when cancelled.
  bool fill();

  int fd_;
  int cancel_fd_;
  std::string name_;
  std::size_t max_line_bytes_;
  std::string block_;
  std::size_t position_ = 0;  // of the first unread byte of block_
};

}  // namespace aurora

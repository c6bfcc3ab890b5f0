// The one exception type of the runtime, and the checks that throw it.
//
// Two kinds of trouble are told apart. A caller's mistake or a failing world (files, sockets, devices) throws
// `Error` with a kind, the place in our source, and a text that names the value, the limit and the remedy. A
// broken invariant of ours throws `Error` of kind kInternal and is a bug. The library never prints and never
// exits; what reaches the user is decided in launch/.
#pragma once

#include <cstdint>
#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>

namespace aurora {

enum class ErrorKind : std::uint8_t {
  kInvalidArgument,  // a value the caller or the user gave cannot be used
  kNotFound,         // a file, tensor, model or key does not exist
  kIo,               // reading or writing failed
  kFormat,           // a file or message is malformed
  kUnsupported,      // well-formed, but not something this build or version can do
  kOutOfMemory,      // a bound on memory would be exceeded
  kTimeout,          // a deadline passed
  kAborted,          // another rank failed and told us
  kDevice,           // CUDA, cuBLAS, NCCL or MPI reported a failure
  kInternal,         // a bug of ours
};

/// The name of a kind as it appears in messages and reports: "invalid argument", "not found", ...
std::string_view error_kind_name(ErrorKind kind) noexcept;

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& text, std::source_location where = std::source_location::current())
      : std::runtime_error(text), kind_(kind), where_(where) {}

  ErrorKind kind() const noexcept { return kind_; }
  const std::source_location& where() const noexcept { return where_; }

 private:
  ErrorKind kind_;
  std::source_location where_;
};

/// Checks an invariant of ours: throws kInternal with file and line. `what` says which invariant broke.
inline void check(bool holds, std::string_view what,
                  std::source_location where = std::source_location::current()) {
  if (!holds) {
    throw Error(ErrorKind::kInternal,
                std::string("internal error: ") + std::string(what) + " (" + where.file_name() + ":" +
                    std::to_string(where.line()) + ")",
                where);
  }
}

}  // namespace aurora

#include "kernels/error.h"

namespace aurora {

std::string_view error_kind_name(ErrorKind kind) noexcept {
  switch (kind) {
    case ErrorKind::kInvalidArgument:
      return "invalid argument";
    case ErrorKind::kNotFound:
      return "not found";
    case ErrorKind::kIo:
      return "input/output error";
    case ErrorKind::kFormat:
      return "malformed input";
    case ErrorKind::kUnsupported:
      return "unsupported";
    case ErrorKind::kOutOfMemory:
      return "out of memory";
    case ErrorKind::kTimeout:
      return "deadline exceeded";
    case ErrorKind::kAborted:
      return "aborted by another rank";
    case ErrorKind::kDevice:
      return "device error";
    case ErrorKind::kInternal:
      return "internal error";
  }
  return "unknown error";
}

}  // namespace aurora

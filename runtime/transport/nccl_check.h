// Turns the result of an NCCL call into an Error. Included by the nccl_*.cc files only, since it brings in
// nccl.h.
#pragma once

#include <nccl.h>

#include <algorithm>
#include <source_location>
#include <string>
#include <string_view>

#include "kernels/error.h"

namespace aurora {

/// NCCL's name for `code`, and what it last noted about `communicator` (may be null), on one line.
inline std::string nccl_error_text(ncclResult_t code, ncclComm_t communicator) {
  std::string text = ncclGetErrorString(code);
  const char* details = ncclGetLastError(communicator);
  if (details != nullptr && *details != '\0') text += std::string(" (") + details + ")";
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

/// Throws kDevice with NCCL's text unless `code` is success. `what` names the call.
inline void check_nccl(ncclResult_t code, std::string_view what, ncclComm_t communicator = nullptr,
                       std::source_location where = std::source_location::current()) {
  if (code == ncclSuccess) return;
  throw Error(ErrorKind::kDevice, std::string(what) + ": NCCL reports " + nccl_error_text(code, communicator),
              where);
}

}  // namespace aurora

// All ranks succeed or all fail: one message names the cause, on the rank that has it.
#pragma once

#include <chrono>
#include <functional>
#include <string_view>

#include "runtime/transport/transport.h"

namespace aurora {

/// Runs `work` on every rank and then exchanges how it went. When it threw on any rank, every rank throws:
/// the lowest failing rank its own error, prefixed with its number, and all others kAborted naming that rank
/// and its error. A rank that is done waits at most `timeout` for the others; its own work is not timed.
/// Collective.
void agree(Transport& transport, std::chrono::milliseconds timeout, std::string_view what,
           const std::function<void()>& work);

}  // namespace aurora

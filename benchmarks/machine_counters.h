// What the kernel counts while something is measured: how long the machine's processors were idle, and what
// TCP had to send again from this network namespace. Linux only; where a file is missing nothing is counted.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace aurora::bench {

/// Of all processors, in ticks (usually 10 ms each); waiting for a disk is idle too.
struct ProcessorTicks {
  std::int64_t idle = 0;
  std::int64_t total = 0;
};

/// From the text of /proc/stat. None when it does not begin with the sum over processors.
std::optional<ProcessorTicks> parse_processor_ticks(std::string_view stat);
/// From the text of /proc/net/snmp. None when it has no such counter.
std::optional<std::int64_t> parse_retransmitted_segments(std::string_view snmp);

std::optional<ProcessorTicks> read_processor_ticks();
std::optional<std::int64_t> read_retransmitted_segments();

}  // namespace aurora::bench

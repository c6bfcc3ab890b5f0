#include "benchmarks/machine_counters.h"

#include <array>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace aurora::bench {
namespace {

std::string text_of(const char* file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

}  // namespace

std::optional<ProcessorTicks> parse_processor_ticks(std::string_view stat) {
  std::istringstream stream{std::string(stat)};
  std::string name;
  // user, nice, system, idle, iowait, irq, softirq, steal; what follows is part of the first two (proc(5)).
  std::array<std::int64_t, 8> ticks{};
  stream >> name;
  for (std::int64_t& count : ticks) stream >> count;
  if (!stream || name != "cpu") return std::nullopt;
  ProcessorTicks sum{.idle = ticks[3] + ticks[4]};
  for (const std::int64_t count : ticks) sum.total += count;
  return sum;
}

// Two lines for each protocol: "Tcp: NAME NAME ..." and "Tcp: NUMBER NUMBER ...".
std::optional<std::int64_t> parse_retransmitted_segments(std::string_view snmp) {
  std::istringstream stream{std::string(snmp)};
  std::vector<std::string> names;
  for (std::string line; std::getline(stream, line);) {
    const std::vector<std::string> words = words_of(line);
    if (words.empty() || words.front() != "Tcp:") continue;
    if (names.empty()) {
      names = words;
      continue;
    }
    for (std::size_t index = 0; index < names.size() && index < words.size(); ++index) {
      if (names[index] == "RetransSegs") return std::stoll(words[index]);
    }
  }
  return std::nullopt;
}

std::optional<ProcessorTicks> read_processor_ticks() { return parse_processor_ticks(text_of("/proc/stat")); }

std::optional<std::int64_t> read_retransmitted_segments() {
  return parse_retransmitted_segments(text_of("/proc/net/snmp"));
}

}  // namespace aurora::bench

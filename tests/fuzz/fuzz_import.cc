// Routing data of any bytes, as a routing record (what follows the first zero byte is its binary file) and as
// expert popularity counts: traffic that keeps its promises, or Error naming the file.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "kernels/error.h"
#include "runtime/plan_io/import_traffic.h"
#include "scheduler/expert_load.h"

namespace {

void demand(bool holds) {
  if (!holds) std::abort();
}

template <class Import>
void demand_traffic_or_error(Import import) {
  try {
    aurora::validate(import());
  } catch (const aurora::Error& error) {
    demand(error.kind() == aurora::ErrorKind::kFormat);
    demand(std::string_view(error.what()).starts_with("fuzz: "));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t split = text.find('\0');
  const std::string_view ids = split == std::string_view::npos ? "" : text.substr(split + 1);
  const aurora::ImportOptions options{.num_sources = 3, .max_samples = 2};
  demand_traffic_or_error([&] {
    const aurora::RoutingRecord record = aurora::parse_routing_record(text.substr(0, split), ids, "fuzz");
    demand(!record.request_token_counts.empty());
    return aurora::traffic_of(record, options);
  });
  demand_traffic_or_error([&] { return aurora::parse_expert_popularity(text, 2, options, "fuzz"); });
  return 0;
}

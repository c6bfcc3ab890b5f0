// Traffic matrices of any bytes: the reader gives a matrix or throws Error, nothing else. What it accepts is
// read back as written, and every policy orders it: sums of accepted matrices fit into 64 bits wherever the
// planner adds them.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "kernels/error.h"
#include "runtime/plan_io/matrix_file.h"
#include "scheduler/makespan_bound.h"
#include "scheduler/order_policy.h"

namespace {

void demand(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const aurora::TrafficMatrix traffic = aurora::parse_matrix(text, "fuzz");
    demand(aurora::parse_matrix(aurora::matrix_text(traffic), "again") == traffic);
    demand(aurora::makespan_bound_bytes(traffic) >= 0);
    constexpr int kLargestOrdered = 5;  // keeps an input below a millisecond
    if (traffic.num_gpus() > kLargestOrdered) return 0;
    for (const aurora::OrderPolicy policy : aurora::all_order_policies()) {
      aurora::plan_order(policy, traffic, aurora::OrderOptions{});
    }
  } catch (const aurora::Error& error) {
    demand(error.kind() == aurora::ErrorKind::kFormat);
    demand(std::string_view(error.what()).starts_with("fuzz: "));
  }
  return 0;
}

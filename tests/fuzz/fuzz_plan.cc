// Plan files of any bytes: the reader gives a valid plan or throws Error naming the file, nothing else. What
// it accepts is read back as written.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "kernels/error.h"
#include "runtime/plan_io/plan_file.h"

namespace {

void demand(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const aurora::DeploymentPlan plan = aurora::parse_plan(text, "fuzz");
    aurora::validate(plan);
    const aurora::DeploymentPlan again = aurora::parse_plan(aurora::plan_text(plan), "again");
    demand(again.models == plan.models && again.epoch == plan.epoch && again.num_gpus == plan.num_gpus);
    demand(again.order_policy == plan.order_policy && again.placement_policy == plan.placement_policy);
  } catch (const aurora::Error& error) {
    demand(error.kind() == aurora::ErrorKind::kFormat);
    demand(std::string_view(error.what()).starts_with("fuzz: "));
  }
  return 0;
}

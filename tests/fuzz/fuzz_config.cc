// Model configuration files of any bytes: the parser gives a configuration or throws Error, nothing else.
// What it accepts keeps its promises.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "kernels/error.h"
#include "launch/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    std::vector<aurora::ModelConfiguration> models = {
        aurora::parse_model_configuration(text, "conf/fuzz.cfg")};
    const aurora::ModelOptions& options = models.front().options;
    if (options.checkpoint.empty() || options.name.empty()) std::abort();
    if (options.max_batch_tokens < 1 || options.kv_cache_bytes < 1) std::abort();
    // What is dumped must be readable TOML of the same value.
    for (const aurora::Field& field : aurora::model_fields(models.front())) aurora::toml_value(field);
    aurora::apply_overrides({{"kv_cache_mb", models.front().options.name + "=3"}}, models);
  } catch (const aurora::Error&) {
  }
  return 0;
}

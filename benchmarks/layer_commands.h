// The flags of `aurora-bench layer` and `aurora-bench calibrate`.
#pragma once

#include "benchmarks/calibrate_suite.h"
#include "benchmarks/layer_suite.h"

namespace CLI {  // NOLINT(readability-identifier-naming): of CLI11
class App;
}

namespace aurora::bench {

CLI::App* add_layer(CLI::App& app, LayerOptions& options, bool& is_json);
CLI::App* add_calibrate(CLI::App& app, CalibrateOptions& options, bool& is_json);

}  // namespace aurora::bench

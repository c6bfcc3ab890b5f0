// What the layer suite and calibration share: a device with its ceilings, and batches made ready on it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "benchmarks/layer/floors.h"
#include "benchmarks/layer/layer_run.h"
#include "benchmarks/layer/repeated_values.h"
#include "benchmarks/layer/routing.h"
#include "benchmarks/layer/shape.h"
#include "benchmarks/layer/stream_timing.h"
#include "benchmarks/layer/weight_copies.h"
#include "benchmarks/layer_suite.h"
#include "runtime/dispatch/placement_table.h"

namespace aurora::bench {

/// A backend, its stream, and what it computes in.
class LayerDevice {
 public:
  /// Throws kUnsupported when the backend does not compute in the type.
  explicit LayerDevice(const LayerOptions& options);

  Backend& backend() { return *backend_; }
  Stream& stream() { return *stream_; }
  StreamTimer& timer() { return *timer_; }
  DType dtype() const { return dtype_; }

  /// 10^9 bytes per second, read and written, of a copy of `size_bytes` within the device's memory.
  double copy_gbps(std::int64_t size_bytes);
  /// 10^12 operations per second of a square product through Ops::linear.
  double product_tflops();

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<StreamTimer> timer_;
  DType dtype_;
};

/// The weights and inputs of one shape, shared by its batches.
class LayerInputs {
 public:
  LayerInputs(LayerDevice& device, const LayerShape& shape, std::uint64_t seed);

  const LayerShape& shape() const { return shape_; }
  const RepeatedValues& weights() const { return weight_values_; }
  const RepeatedValues& hidden() const { return hidden_values_; }
  const PlacementTable& table() const { return *table_; }
  WeightCopies& copies() { return copies_; }

 private:
  LayerShape shape_;
  RepeatedValues weight_values_, hidden_values_;
  std::optional<PlacementTable> table_;
  WeightCopies copies_;
};

/// Runs of one batch in turn. The device, the inputs and the routing outlive it.
class RotatedLayer {
 public:
  RotatedLayer(LayerDevice& device, LayerInputs& inputs, const LayerRouting& routing);

  /// Makes sure that there are runs and copies of weights to touch `rotate_bytes` when each touches
  /// `run_bytes`, but at most `kMostRuns`, and that runs need no more than `kMostRunMemory`.
  void reserve(double run_bytes, std::int64_t rotate_bytes, bool with_weights);

  using Stage = std::function<void(const LayerRun& run, const ExpertBank& weights)>;
  /// Microseconds of one run of `stage`, on the runs that `reserve` has last made sure of in turn.
  Timing time(const Stage& stage);
  const LayerRun& first() const { return *runs_.front(); }
  std::size_t num_turns() const { return num_turns_; }
  std::span<const float> logits() const { return logits_; }
  /// The first run's whole layer once, on a residual of zeros: its output, [num_tokens, hidden].
  std::vector<float> output_once();
  /// Whether the router chose what its logits say.
  void check_routing();

  static constexpr std::size_t kMostRuns = 64;
  static constexpr std::size_t kMostRunMemory = std::size_t{8} << 30;

 private:
  LayerDevice* device_;
  LayerInputs* inputs_;
  const LayerRouting* routing_;
  std::vector<float> logits_;
  LayerBatch batch_;
  std::vector<std::unique_ptr<LayerRun>> runs_;
  std::size_t num_turns_ = 0;
  std::size_t num_copies_ = 0;  // of the weights that turns go through
};

}  // namespace aurora::bench

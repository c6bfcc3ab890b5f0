#include "benchmarks/layer/layer_bench.h"

#include <algorithm>
#include <cmath>

#include "kernels/backend_registry.h"
#include "kernels/error.h"

namespace aurora::bench {
namespace {

/// Every expert on the one rank there is.
LayerPlacement all_here(std::int64_t num_experts) {
  LayerPlacement placement;
  placement.experts.assign(static_cast<std::size_t>(num_experts), {ExpertReplica{GpuId{0}, 1}});
  return placement;
}

DType dtype_of(const LayerOptions& options, const Backend& backend) {
  std::string name = options.dtype;
  if (name.empty()) name = backend.computes(DType::kBFloat16) ? "bfloat16" : "float32";
  const std::optional<DType> dtype = parse_dtype(name);
  if (!dtype || !backend.computes(*dtype)) {
    throw Error(ErrorKind::kUnsupported, "--dtype " + name + ": backend " + std::string(backend.name()) +
                                             " does not compute in it; float32 works everywhere");
  }
  return *dtype;
}

}  // namespace

LayerDevice::LayerDevice(const LayerOptions& options)
    : backend_(create_backend(
          options.backend,
          {.num_threads = options.num_threads, .graphs = options.graphs, .device = options.device})),
      stream_(backend_->create_stream()),
      timer_(std::make_unique<StreamTimer>(*backend_, *stream_,
                                           TimingOptions{.seconds = options.seconds,
                                                         .graphs = options.graphs,
                                                         .timeout_seconds = options.timeout_seconds})),
      dtype_(dtype_of(options, *backend_)) {}

double LayerDevice::copy_gbps(std::int64_t size_bytes) {
  const auto size = static_cast<std::size_t>(size_bytes);
  const Buffer from = backend_->allocate(size, MemorySpace::kDevice);
  const Buffer to = backend_->allocate(size, MemorySpace::kDevice);
  backend_->copy(*stream_, from.data(), to.data(), size);  // memory is there once it was written
  const double us = timer_->time({[&] { backend_->copy(*stream_, to.data(), from.data(), size); }}).us.median;
  return 2 * static_cast<double>(size_bytes) / us * 1e-3;
}

double LayerDevice::product_tflops() {
  const std::int64_t width = backend_->name() == "cpu" ? 1024 : 8192;
  const RepeatedValues values(*backend_, dtype_, 1, 1, 1);
  const std::size_t size = static_cast<std::size_t>(width * width) * dtype_bytes(dtype_);
  std::vector<Buffer> memory;
  std::vector<Tensor> matrices;
  for (int index = 0; index < 3; ++index) {
    memory.push_back(backend_->allocate(size, MemorySpace::kDevice));
    matrices.emplace_back(memory.back().data(), dtype_, std::initializer_list<std::int64_t>{width, width});
    values.fill(*stream_, matrices.back());
  }
  const LinearArgs args{.input = matrices[0], .weight = matrices[1], .bias = {}, .output = matrices[2]};
  const double us = timer_->time({[&] { backend_->ops().linear(*stream_, args); }}).us.median;
  return 2 * std::pow(static_cast<double>(width), 3) / us * 1e-6;
}

LayerInputs::LayerInputs(LayerDevice& device, const LayerShape& shape, std::uint64_t seed)
    : shape_(shape),
      weight_values_(device.backend(), device.dtype(), 1 / std::sqrt(static_cast<double>(shape.hidden)),
                     std::max(shape.hidden, shape.inner), seed),
      hidden_values_(device.backend(), device.dtype(), 1, shape.hidden, seed + 1),
      copies_(device.backend(), device.stream(), shape_, device.dtype(), weight_values_) {
  table_.emplace(all_here(shape.num_experts), RankOf{}, device.backend(), device.stream());
  device.timer().synchronize();
}

RotatedLayer::RotatedLayer(LayerDevice& device, LayerInputs& inputs, const LayerRouting& routing)
    : device_(&device),
      inputs_(&inputs),
      routing_(&routing),
      logits_(logits_of(inputs.shape(), routing)),
      batch_{.backend = device.backend(),
             .stream = device.stream(),
             .shape = inputs.shape(),
             .dtype = device.dtype(),
             .routing = routing,
             .table = inputs.table(),
             .hidden = inputs.hidden(),
             .logits = logits_} {
  runs_.push_back(std::make_unique<LayerRun>(batch_));
}

void RotatedLayer::reserve(double run_bytes, std::int64_t rotate_bytes, bool with_weights) {
  const double wanted = std::ceil(static_cast<double>(rotate_bytes) / std::max(run_bytes, 1.0));
  const double affordable = static_cast<double>(kMostRunMemory) /
                            static_cast<double>(std::max<std::size_t>(first().memory_bytes(), 1));
  num_turns_ =
      static_cast<std::size_t>(std::clamp(std::min(wanted, affordable), 1.0, static_cast<double>(kMostRuns)));
  num_copies_ = with_weights ? num_turns_ : 1;
  inputs_->copies().reserve(num_copies_);
  while (runs_.size() < num_turns_) runs_.push_back(std::make_unique<LayerRun>(batch_));
  // Every run has its routing, and what the stages before the one that is timed leave.
  for (const auto& run : runs_) {
    run->submit(inputs_->copies().copy(0));
    run->submit_rows();
  }
  device_->timer().synchronize();
}

Timing RotatedLayer::time(const Stage& stage) {
  std::vector<Submission> turns;
  for (std::size_t turn = 0; turn < num_turns_; ++turn) {
    turns.emplace_back(
        [&, turn] { stage(*runs_[turn], inputs_->copies().copy(std::min(turn, num_copies_ - 1))); });
  }
  return device_->timer().time(turns);
}

std::vector<float> RotatedLayer::output_once() {
  const Tensor& residual = first().residual();
  std::vector<float> output(static_cast<std::size_t>(residual.num_elements()));
  device_->backend().copy(device_->stream(), residual.bytes(), output.data(), residual.size_bytes());
  first().submit(inputs_->copies().copy(0));
  device_->backend().copy(device_->stream(), output.data(), residual.bytes(), residual.size_bytes());
  device_->timer().synchronize();
  return output;
}

void RotatedLayer::check_routing() {
  std::vector<std::int32_t> chosen(routing_->expert_ids.size());
  const Tensor& ids = first().expert_ids();
  device_->backend().copy(device_->stream(), chosen.data(), ids.bytes(), ids.size_bytes());
  device_->timer().synchronize();
  check(chosen == routing_->expert_ids, "the router chooses the experts with the largest logits, in order");
}

}  // namespace aurora::bench

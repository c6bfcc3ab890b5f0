#include "runtime/executor/model_step.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace aurora {

ModelStep::ModelStep(ServedModel& model, std::size_t model_index, TraceRecorder& trace)
    : model_(&model),
      model_index_(model_index),
      trace_(&trace),
      graphs_({&model.backend(), &model.stream(), &model.moe_block().phases(), model.config().num_layers}),
      routed_space_(model.backend()),
      host_routed_space_(model.backend(), MemorySpace::kHost),
      sampled_event_(model.backend().create_event()),
      sampled_space_(model.backend()),
      host_sampled_space_(model.backend(), MemorySpace::kHost),
      uses_device_times_(trace.keeps_events() && model.backend().is_asynchronous()) {}

void ModelStep::begin() {
  check(is_done(), "a step begins when the one before it is done");
  if (uses_device_times_) start_clock();
  mark_ns_ = trace_clock_ns();
  exchanges_ = {};
  progress_.clear();
  batch_ = &model_->batcher().form_batch();
  model_->decoder().begin(*batch_);
  const std::int64_t num_pairs = batch_->num_tokens() * model_->config().top_k;
  routed_ = routed_space_.tensor(DType::kInt32, model_->num_moe_layers(), num_pairs);
  host_routed_ = host_routed_space_.tensor(DType::kInt32, model_->num_moe_layers(), num_pairs);
  begin_graphs();
  marked_bytes_ = 0;
  layer_ = 0;
  moe_layer_ = 0;
  enter_layer();
}

void ModelStep::enter_layer() {
  const bool is_head = layer_ == model_->config().num_layers;
  phases().enter_layer(is_head ? kNoLayer : static_cast<std::int32_t>(layer_));
  stage_ = is_head ? Stage::kHead : Stage::kAttention;
}

Phase ModelStep::phase() const {
  switch (stage_) {
    case Stage::kAttention:
      return Phase::kAttention;
    case Stage::kMoe:
      return model_->moe_block().phase();
    case Stage::kHead:
    case Stage::kSampling:
      return Phase::kHead;
    case Stage::kDone:
      break;
  }
  return Phase::kDone;
}

bool ModelStep::advance(SubmissionOrder& order) {
  switch (stage_) {
    case Stage::kAttention:
      submit_layer();
      return true;
    case Stage::kMoe:
      return advance_moe(order);
    case Stage::kHead:
      submit_head();
      return true;
    case Stage::kSampling:
      return finish_sampling();
    case Stage::kDone:
      break;
  }
  return false;
}

// What a layer submits before its MoE block waits for counts.
void ModelStep::submit_layer() {
  const bool is_moe = model_->config().is_moe_layer[layer_];
  if (is_moe) begin_moe();
  graphs_.submit(layer_, [&] {
    {
      const PhaseMarker::Stretch stretch = phases().mark(Phase::kAttention);
      model_->decoder().attend(layer_);
      if (!is_moe) model_->decoder().dense_ffn(layer_);
    }
    if (is_moe) model_->moe_block().submit_gate();
  });
  mark(Phase::kAttention);
  if (is_moe) return;
  ++layer_;
  enter_layer();
}

// Replayed ids are read from the host, so that a graph of them would always be of the same ids; and what is
// in a graph cannot be timed by phases.
void ModelStep::begin_graphs() {
  const bool is_static = model_->replay() == nullptr && !uses_device_times_;
  graphs_.begin_step(is_static ? StepShape::of(*batch_) : StepShape{});
}

std::span<const std::int32_t> ModelStep::expert_ids(int moe_layer) const {
  const auto width = static_cast<std::size_t>(host_routed_.dim(1));
  return {host_routed_.i32() + static_cast<std::size_t>(moe_layer) * width, width};
}

void ModelStep::begin_moe() {
  const Decoder& decoder = model_->decoder();
  if (model_->replay() != nullptr) {
    model_->replay()->expert_ids(moe_layer_, model_->batcher().origins(), given_ids_);
  }
  const std::int64_t num_pairs = routed_.dim(1);
  model_->moe_block().begin({.moe_layer = moe_layer_,
                             .weights = &model_->weights().layers[layer_].moe,
                             .experts = &model_->experts(),
                             .normalized = decoder.normalized(),
                             .residual = decoder.residual(),
                             .given_expert_ids = given_ids_,
                             .expert_ids = Tensor(routed_.i32() + moe_layer_ * num_pairs, DType::kInt32,
                                                  {decoder.normalized().dim(0), model_->config().top_k})});
  stage_ = Stage::kMoe;
}

bool ModelStep::advance_moe(SubmissionOrder& order) {
  MoeBlock& block = model_->moe_block();
  const Phase before = block.phase();
  if (!block.advance(order)) return false;
  if (block.phase() == before) return true;
  const bool is_exchange = before == Phase::kDispatch || before == Phase::kCombine;
  mark(before, is_exchange ? block.sent_bytes() - marked_bytes_ : 0);
  if (is_exchange) marked_bytes_ = block.sent_bytes();
  if (block.is_done()) {
    ++layer_;
    ++moe_layer_;
    enter_layer();
  }
  return true;
}

void ModelStep::submit_head() {
  {
    const PhaseMarker::Stretch stretch = phases().mark(Phase::kHead);
    sample_outputs();
    model_->backend().copy(model_->stream(), host_routed_.bytes(), routed_.bytes(), routed_.size_bytes());
  }
  // After the stretch has ended: once this is complete, so are all times of the step.
  model_->stream().record(*sampled_event_);
  stage_ = Stage::kSampling;
}

void ModelStep::sample_outputs() {
  const std::int64_t outputs = batch_->num_outputs();
  host_sampled_ = host_sampled_space_.vector(DType::kInt32, outputs);
  if (outputs == 0) return;
  Backend& backend = model_->backend();
  const Tensor logits = model_->decoder().head();
  const Tensor ids = sampled_space_.vector(DType::kInt32, outputs);
  backend.ops().sample(model_->stream(), {logits, model_->batcher().sampling_rows(), ids});
  backend.copy(model_->stream(), host_sampled_.bytes(), ids.bytes(), ids.size_bytes());
}

bool ModelStep::finish_sampling() {
  if (!sampled_event_->is_complete() || !model_->moe_block().is_settled()) return false;
  exchanges_ = model_->moe_block().take_statistics();
  record_routing();
  if (uses_device_times_) record_spans();
  progress_ =
      model_->batcher().accept({host_sampled_.i32(), static_cast<std::size_t>(host_sampled_.num_elements())});
  stage_ = Stage::kDone;
  mark(Phase::kHead);
  return true;
}

void ModelStep::record_routing() {
  for (int moe_layer = 0; moe_layer < model_->num_moe_layers(); ++moe_layer) {
    model_->traffic().record(moe_layer, expert_ids(moe_layer));
    if (TrafficRecorder* window = model_->window()) window->record(moe_layer, expert_ids(moe_layer));
    if (RoutingCollector* collector = model_->collector()) {
      collector->record(moe_layer, model_->batcher().origins(), expert_ids(moe_layer));
    }
  }
}

void ModelStep::start_clock() {
  constexpr std::chrono::seconds kLongestWait(10);  // of an idle stream
  const std::int64_t before = trace_clock_ns();
  model_->moe_block().start_clock(std::chrono::steady_clock::now() + kLongestWait);
  clock_ns_ = before + (trace_clock_ns() - before) / 2;
}

bool ModelStep::is_timed_by_device(Phase phase) const {
  if (!uses_device_times_ || phase == Phase::kCounts) return false;
  return !is_exchange(phase) || model_->moe_block().times_exchanges();
}

void ModelStep::mark(Phase phase, std::int64_t bytes) {
  const std::int64_t start = std::exchange(mark_ns_, trace_clock_ns());
  if (is_timed_by_device(phase)) return;
  trace_->record({.model_index = static_cast<std::int32_t>(model_index_),
                  .layer = phase == Phase::kHead ? kNoLayer : static_cast<std::int32_t>(layer_),
                  .phase = phase,
                  .start_ns = start,
                  .end_ns = mark_ns_,
                  .bytes = bytes});
}

void ModelStep::record_spans() {
  const auto trace_ns = [&](double seconds) { return clock_ns_ + std::llround(seconds * 1e9); };
  std::vector<DeviceSpan> spans = model_->moe_block().take_spans();
  std::ranges::sort(spans, {}, &DeviceSpan::start_seconds);
  for (const DeviceSpan& span : spans) {
    trace_->record({.model_index = static_cast<std::int32_t>(model_index_),
                    .layer = span.layer,
                    .phase = span.phase,
                    .start_ns = trace_ns(span.start_seconds),
                    .end_ns = trace_ns(span.end_seconds),
                    .bytes = span.sent_bytes});
  }
}

}  // namespace aurora

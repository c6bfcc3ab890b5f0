#include "runtime/executor/model_step.h"

#include <algorithm>
#include <cmath>

namespace aurora {

ModelStep::ModelStep(const Args& args)
    : model_(args.model),
      lane_(&args.model->lane(args.lane_index)),
      lane_index_(args.lane_index),
      model_index_(args.model_index),
      trace_(args.trace),
      graphs_(
          {&model_->backend(), &model_->stream(), &lane_->moe_block->phases(), model_->config().num_layers}),
      routed_space_(model_->backend()),
      host_routed_space_(model_->backend(), MemorySpace::kHost),
      sampled_event_(model_->backend().create_event()),
      sampled_space_(model_->backend()),
      host_sampled_space_(model_->backend(), MemorySpace::kHost) {
  given_ids_.resize(static_cast<std::size_t>(model_->num_moe_layers()));
  if (trace_->keeps_events()) phases().time_on_device();
}

void ModelStep::begin(const BatchPart& part) {
  check(is_done(), "a step begins when the one before it is done");
  start_clock();
  exchanges_ = {};
  part_ = &part;
  decoder().begin(batch());
  const std::int64_t num_pairs = batch().num_tokens() * model_->config().top_k;
  routed_ = routed_space_.tensor(DType::kInt32, model_->num_moe_layers(), num_pairs);
  host_routed_ = host_routed_space_.tensor(DType::kInt32, model_->num_moe_layers(), num_pairs);
  begin_graphs();
  layer_ = 0;
  moe_layer_ = 0;
  enter_layer();
}

void ModelStep::enter_layer() {
  const bool is_head = layer_ == model_->config().num_layers;
  phases().enter_layer(is_head ? kNoLayer : static_cast<std::int32_t>(layer_));
  stage_ = is_head ? Stage::kHead : Stage::kAttention;
}

std::int64_t ModelStep::position() const {
  constexpr std::int64_t kExpertsPosition = 1;
  constexpr std::int64_t kAggregationPosition = 2;
  const Phase now = phase();
  if (now == Phase::kDone) return num_positions();
  const bool is_before_aggregation = now == Phase::kCombine || now == Phase::kAggregation;
  const bool is_before_experts = now == Phase::kDispatch || now == Phase::kExperts;
  return kPositionsOfLayer * layer_ + (is_before_aggregation ? kAggregationPosition
                                       : is_before_experts   ? kExpertsPosition
                                                             : 0);
}

Phase ModelStep::phase() const {
  switch (stage_) {
    case Stage::kAttention:
      return Phase::kAttention;
    case Stage::kMoe:
      return lane_->moe_block->phase();
    case Stage::kHead:
    case Stage::kSampling:
      return Phase::kHead;
    case Stage::kDone:
      break;
  }
  return Phase::kDone;
}

std::string_view ModelStep::awaits(const SubmissionOrder& order) {
  switch (stage_) {
    case Stage::kMoe:
      return moe_block().awaits(order);
    case Stage::kAttention:
    case Stage::kHead:
      return "its turn to compute";
    case Stage::kSampling:
      return "its tokens on the device, or transfers under way";
    case Stage::kDone:
      break;
  }
  return "nothing";
}

bool ModelStep::advance(SubmissionOrder& order) {
  switch (stage_) {
    case Stage::kAttention:
      return submit_layer();
    case Stage::kMoe:
      return advance_moe(order);
    case Stage::kHead:
      return submit_head();
    case Stage::kSampling:
      return finish_sampling();
    case Stage::kDone:
      break;
  }
  return false;
}

// A layer up to where its MoE block waits for counts, if it does. As a graph all layers are one piece when
// nothing is exchanged between them, unless others that share the device are to have their turns between.
bool ModelStep::submit_layer() {
  if (!phases().may_compute()) return false;
  if (graphs_.has_shape() && moe_block().is_local() && !phases().is_shared()) {
    submit_all_layers();
    return true;
  }
  if (is_moe_layer()) begin_moe();
  graphs_.submit(layer_, [&] { submit_layer_work(); });
  if (is_moe_layer()) moe_block().follow_first();
  if (is_moe_layer() && !moe_block().is_done()) {
    stage_ = Stage::kMoe;
  } else {
    leave_layer();
  }
  return true;
}

void ModelStep::submit_all_layers() {
  graphs_.submit(LayerGraphs::kAllLayers, [&] {
    while (layer_ < model_->config().num_layers) {
      if (is_moe_layer()) begin_moe();
      submit_layer_work();
      leave_layer();
    }
  });
  // A graph has not gone through them.
  layer_ = model_->config().num_layers;
  enter_layer();
}

void ModelStep::submit_layer_work() {
  {
    const PhaseMarker::Stretch stretch = phases().mark(Phase::kAttention);
    decoder().attend(layer_);
    if (!is_moe_layer()) decoder().dense_ffn(layer_);
  }
  if (is_moe_layer()) moe_block().submit_first();
}

void ModelStep::leave_layer() {
  if (is_moe_layer()) ++moe_layer_;
  ++layer_;
  enter_layer();
}

// Replayed ids are read from the host, so that a graph of them would always be of the same ids; and what is
// in a graph cannot be timed by phases.
void ModelStep::begin_graphs() {
  const bool is_static = model_->replay() == nullptr && !phases().times_device();
  graphs_.begin_step(is_static ? StepShape::of(batch()) : StepShape{});
}

std::span<const std::int32_t> ModelStep::expert_ids(int moe_layer) const {
  const auto width = static_cast<std::size_t>(host_routed_.dim(1));
  return {host_routed_.i32() + static_cast<std::size_t>(moe_layer) * width, width};
}

void ModelStep::begin_moe() {
  const Decoder& decoder = *lane_->decoder;
  std::vector<std::int32_t>& given_ids = given_ids_[static_cast<std::size_t>(moe_layer_)];
  if (model_->replay() != nullptr) model_->replay()->expert_ids(moe_layer_, part_->origins, given_ids);
  const std::int64_t num_pairs = routed_.dim(1);
  moe_block().begin({.moe_layer = moe_layer_,
                     .weights = &model_->weights().layers[layer_].moe,
                     .experts = &model_->experts(),
                     .normalized = decoder.normalized(),
                     .residual = decoder.residual(),
                     .given_expert_ids = given_ids,
                     .expert_ids = Tensor(routed_.i32() + moe_layer_ * num_pairs, DType::kInt32,
                                          {decoder.normalized().dim(0), model_->config().top_k})});
}

bool ModelStep::advance_moe(SubmissionOrder& order) {
  if (!moe_block().advance(order)) return false;
  if (moe_block().is_done()) leave_layer();
  return true;
}

bool ModelStep::submit_head() {
  if (!phases().may_compute()) return false;
  {
    const PhaseMarker::Stretch stretch = phases().mark(Phase::kHead);
    sample_outputs();
    model_->backend().copy(stream(), host_routed_.bytes(), routed_.bytes(), routed_.size_bytes());
  }
  // After the stretch has ended: once this is complete, so are all times of the step.
  stream().record(*sampled_event_);
  stage_ = Stage::kSampling;
  return true;
}

void ModelStep::sample_outputs() {
  const std::int64_t outputs = batch().num_outputs();
  host_sampled_ = host_sampled_space_.vector(DType::kInt32, outputs);
  if (outputs == 0) return;
  Backend& backend = model_->backend();
  const Tensor logits = decoder().head();
  const Tensor ids = sampled_space_.vector(DType::kInt32, outputs);
  backend.ops().sample(stream(), {logits, part_->sampling_rows, ids});
  backend.copy(stream(), host_sampled_.bytes(), ids.bytes(), ids.size_bytes());
}

bool ModelStep::finish_sampling() {
  if (!sampled_event_->is_complete() || !moe_block().is_settled()) return false;
  exchanges_ = moe_block().take_statistics();
  record_routing();
  record_spans();
  stage_ = Stage::kDone;
  return true;
}

void ModelStep::record_routing() {
  for (int moe_layer = 0; moe_layer < model_->num_moe_layers(); ++moe_layer) {
    model_->traffic().record(moe_layer, expert_ids(moe_layer));
    if (TrafficRecorder* window = model_->window()) window->record(moe_layer, expert_ids(moe_layer));
    if (RoutingCollector* collector = model_->collector()) {
      collector->record(moe_layer, part_->origins, expert_ids(moe_layer));
    }
  }
}

void ModelStep::start_clock() {
  constexpr std::chrono::seconds kLongestWait(10);  // of an idle stream
  moe_block().start_clock(std::chrono::steady_clock::now() + kLongestWait);
}

void ModelStep::record_spans() {
  const std::int64_t clock_ns = std::chrono::nanoseconds(phases().clock_start().time_since_epoch()).count();
  const auto trace_ns = [&](double seconds) { return clock_ns + std::llround(seconds * 1e9); };
  std::vector<PhaseSpan> spans = moe_block().take_spans();
  std::ranges::stable_sort(spans, {}, &PhaseSpan::start_seconds);
  for (const PhaseSpan& span : spans) {
    trace_->record({.model_index = static_cast<std::int32_t>(model_index_),
                    .layer = span.layer,
                    .phase = span.phase,
                    .start_ns = trace_ns(span.start_seconds),
                    .end_ns = trace_ns(span.end_seconds),
                    .bytes = span.sent_bytes});
  }
}

}  // namespace aurora

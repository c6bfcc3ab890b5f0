// The device under test, and the tests that run on every backend of the build.
//
// Tests keep their data in host vectors. On a GPU `Device` mirrors every tensor of an operation's arguments:
// it copies it to device memory, as aligned or misaligned as the host's, submits the operation on the
// mirrors, and copies all of them back when the work is done. Tensors that share their data share a mirror,
// so in-place operations stay so.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/backend_registry.h"
#include "kernels/cpu/isa.h"
#include "kernels/ops.h"

namespace aurora::kernel_test {

/// A deadline no healthy test meets.
inline Deadline soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(60); }

// One list of an operation's tensors each; `use` may replace them.
template <class Use>
void for_each_tensor(EmbedArgs& args, const Use& use) {
  for (Tensor* tensor : {&args.table, &args.token_ids, &args.output}) use(*tensor);
}
template <class Use>
void for_each_tensor(RmsNormArgs& args, const Use& use) {
  for (Tensor* tensor : {&args.input, &args.weight, &args.output}) use(*tensor);
}
template <class Use>
void for_each_tensor(LinearArgs& args, const Use& use) {
  for (Tensor* tensor : {&args.input, &args.weight, &args.bias, &args.output}) use(*tensor);
}
template <class Use>
void for_each_tensor(RopeArgs& args, const Use& use) {
  for (Tensor* tensor : {&args.query, &args.key, &args.positions, &args.cosine, &args.sine}) use(*tensor);
}
template <class Use>
void for_each_tensor(ClampArgs& args, const Use& use) {
  use(args.values);
}
template <class Use>
void for_each_tensor(AppendKvArgs& args, const Use& use) {
  for (Tensor* tensor : {&args.key, &args.value, &args.slots, &args.key_cache, &args.value_cache})
    use(*tensor);
}
template <class Use>
void for_each_tensor(PagedAttentionArgs& args, const Use& use) {
  for (Tensor* tensor : {&args.query, &args.key_cache, &args.value_cache, &args.block_tables,
                         &args.sequence_index, &args.positions, &args.output}) {
    use(*tensor);
  }
}
template <class Use>
void for_each_tensor(RouteArgs& args, const Use& use) {
  for (Tensor* tensor : {&args.logits, &args.expert_ids, &args.weights}) use(*tensor);
}
template <class Use>
void for_each_tensor(GatherRowsArgs& args, const Use& use) {
  for (Tensor* tensor : {&args.input, &args.indices, &args.output}) use(*tensor);
}
template <class Use>
void for_each_tensor(AssignRowsArgs& args, const Use& use) {
  for (Tensor* tensor :
       {&args.expert_ids, &args.weights, &args.replicas.offsets, &args.replicas.ranks, &args.replicas.bounds,
        &args.replicas.slots, &args.scratch, &args.counts, &args.row_offsets, &args.row_tokens, &args.headers,
        &args.term_offsets, &args.term_indices}) {
    use(*tensor);
  }
}
template <class Use>
void for_each_tensor(PackRowsArgs& args, const Use& use) {
  const auto num_words = static_cast<std::int64_t>(args.row_bytes / 2) * args.indices.dim(0);
  Tensor output(args.output, DType::kBFloat16, {num_words});
  for (Tensor* tensor : {&args.input, &args.indices, &args.headers, &args.row_offsets, &output}) use(*tensor);
  args.output = output.bytes();
}
template <class Use>
void for_each_tensor(DequantizeRowsArgs& args, const Use& use) {
  auto* data = const_cast<std::byte*>(args.rows);
  Tensor rows(data, DType::kBFloat16, {static_cast<std::int64_t>(args.row_bytes / 2) * args.output.dim(0)});
  for (Tensor* tensor : {&rows, &args.output}) use(*tensor);
  args.rows = rows.bytes();
}
template <class Use>
void for_each_tensor(GroupRowsArgs& args, const Use& use) {
  const auto num_words = static_cast<std::int64_t>(args.row_bytes / 2) * args.num_rows;
  Tensor rows(const_cast<std::byte*>(args.rows), DType::kBFloat16, {num_words});
  for (Tensor* tensor : {&rows, &args.local_index, &args.scratch, &args.expert_offsets, &args.row_indices,
                         &args.term_offsets, &args.term_indices, &args.term_weights}) {
    use(*tensor);
  }
  args.rows = rows.bytes();
}
template <class Use>
void for_each_tensor(GroupPairsArgs& args, const Use& use) {
  for (Tensor* tensor : {&args.expert_ids, &args.scratch, &args.expert_offsets, &args.row_indices,
                         &args.term_offsets, &args.term_indices}) {
    use(*tensor);
  }
}
template <class Use>
void for_each_tensor(WeightedSumArgs& args, const Use& use) {
  for (Tensor* tensor :
       {&args.input, &args.offsets, &args.indices, &args.weights, &args.initial, &args.output}) {
    use(*tensor);
  }
}
/// The experts' weights are in the bank: `Device` makes one of their mirrors.
template <class Use>
void for_each_tensor(ExpertFfnArgs& args, const Use& use) {
  for (Tensor* tensor : {&args.input, &args.row_indices, &args.expert_offsets, &args.scratch, &args.output}) {
    use(*tensor);
  }
}
template <class Use>
void for_each_tensor(SiluMultiplyArgs& args, const Use& use) {
  for (Tensor* tensor : {&args.gate, &args.up, &args.output}) use(*tensor);
}
template <class Use>
void for_each_tensor(AddArgs& args, const Use& use) {
  for (Tensor* tensor : {&args.input, &args.output}) use(*tensor);
}
template <class Use>
void for_each_tensor(SigmoidGatedAddArgs& args, const Use& use) {
  for (Tensor* tensor : {&args.input, &args.gate_logits, &args.output}) use(*tensor);
}
template <class Use>
void for_each_tensor(SampleArgs& args, const Use& use) {
  for (Tensor* tensor : {&args.logits, &args.token_ids}) use(*tensor);
}

/// Host memory and its copy on a device.
class Mirrors {
 public:
  explicit Mirrors(Backend& backend) : backend_(&backend) {}

  /// Says that `tensor` will be looked up.
  void add(const Tensor& tensor);
  /// Allocates and fills the copies of all that was added.
  void copy_in(Stream& stream);
  /// The same tensor in device memory.
  void replace(Tensor& tensor) const;
  /// Copies everything back. The stream must be done.
  void copy_out(Stream& stream);

 private:
  struct Copy {
    std::size_t size_bytes = 0;
    Buffer buffer;
    std::byte* data = nullptr;
  };
  Backend* backend_;
  std::map<std::byte*, Copy> copies_;  // by host address
};

/// A backend and one stream of it.
class Device {
 public:
  explicit Device(const BackendOptions& options = {}, const std::string& backend = "cpu")
      : backend_(create_backend(backend, options)), stream_(backend_->create_stream()) {}

  Backend& backend() { return *backend_; }
  Stream& stream() { return *stream_; }
  const Ops& ops() const { return backend_->ops(); }
  bool is_cpu() const { return backend_->name() == "cpu"; }

  /// Submits the operation; what it writes is there after `finish`.
  template <typename Args>
  void submit(void (Ops::*operation)(Stream&, const Args&) const, Args args) {
    if (is_cpu()) return (ops().*operation)(*stream_, args);
    mirrors_ = std::make_unique<Mirrors>(*backend_);
    for_each_tensor(args, [&](Tensor& tensor) { mirrors_->add(tensor); });
    if constexpr (std::is_same_v<Args, ExpertFfnArgs>) {
      experts_.assign(args.experts->experts().begin(), args.experts->experts().end());
      for_each_expert_tensor([&](Tensor& tensor) { mirrors_->add(tensor); });
    }
    mirrors_->copy_in(*stream_);
    for_each_tensor(args, [&](Tensor& tensor) { mirrors_->replace(tensor); });
    if constexpr (std::is_same_v<Args, ExpertFfnArgs>) {
      for_each_expert_tensor([&](Tensor& tensor) { mirrors_->replace(tensor); });
      bank_ = ops().make_expert_bank(experts_);
      args.experts = bank_.get();
    }
    (ops().*operation)(*stream_, args);
  }

  /// Waits for what was submitted; on a GPU for one operation at a time.
  void finish() {
    stream_->synchronize(soon());
    if (mirrors_ != nullptr) mirrors_->copy_out(*stream_);
    mirrors_.reset();
  }

  template <typename Args>
  void run(void (Ops::*operation)(Stream&, const Args&) const, const Args& args) {
    submit(operation, args);
    finish();
  }

 private:
  template <class Use>
  void for_each_expert_tensor(const Use& use) {
    for (ExpertWeights& expert : experts_) {
      for (Tensor* tensor : {&expert.gate, &expert.up, &expert.down}) use(*tensor);
    }
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Mirrors> mirrors_;
  std::vector<ExpertWeights> experts_;
  std::unique_ptr<ExpertBank> bank_;
  std::unique_ptr<Stream> stream_;
};

/// A backend made in one of its ways.
struct Variant {
  std::string backend = "cpu";
  bool deterministic = false;
  bool worker_streams = false;
};

/// The plain backends; both modes of each; the deterministic ones; both modes and the CPU's worker streams.
std::vector<Variant> every_backend();
std::vector<Variant> every_gemm();
std::vector<Variant> every_deterministic();
std::vector<Variant> every_way();

/// "cpu", "cuda_deterministic", "cpu_worker", ...
std::string variant_name(const testing::TestParamInfo<Variant>& info);
/// The same in GoogleTest's own messages.
void PrintTo(const Variant& variant, std::ostream* stream);

/// A test on every backend of the build; skipped where this machine has no device for it.
class OnEveryBackend : public testing::TestWithParam<Variant> {
 protected:
  void SetUp() override {
    const Variant& variant = GetParam();
    if (visible_devices(variant.backend).num_devices == 0) GTEST_SKIP() << "no GPU";
    device_ = std::make_unique<Device>(make_device());
  }
  Device make_device() const {
    const Variant& variant = GetParam();
    return Device({.deterministic = variant.deterministic, .worker_streams = variant.worker_streams},
                  variant.backend);
  }
  Device& device() { return *device_; }

 private:
  std::unique_ptr<Device> device_;
};

/// Runs `body(isa)` with the CPU kernels limited to each instruction set that this processor has.
template <typename Body>
void for_each_isa(const Body& body) {
  for (const cpu::Isa isa : {cpu::Isa::kBaseline, cpu::Isa::kAvx2, cpu::Isa::kAvx512}) {
    if (isa > cpu::detected_isa()) continue;
    SCOPED_TRACE("instruction set " + std::to_string(static_cast<int>(isa)));
    cpu::limit_isa(isa);
    body(isa);
  }
  cpu::limit_isa(cpu::detected_isa());
}

/// The same; a GPU has one instruction set.
template <typename Body>
void for_each_isa(const Device& device, const Body& body) {
  if (device.is_cpu()) return for_each_isa(body);
  body(cpu::detected_isa());
}

}  // namespace aurora::kernel_test

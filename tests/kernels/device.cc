#include "tests/kernels/device.h"

#include <algorithm>

namespace aurora::kernel_test {
namespace {

constexpr std::uintptr_t kAlignment = 16;  // the widest that a kernel cares about

std::uintptr_t misalignment(const std::byte* data) {
  return reinterpret_cast<std::uintptr_t>(data) % kAlignment;
}

}  // namespace

void Mirrors::add(const Tensor& tensor) {
  if (!tensor.has_data()) return;
  std::size_t& size = copies_[tensor.bytes()].size_bytes;
  size = std::max(size, tensor.size_bytes());
}

void Mirrors::copy_in(Stream& stream) {
  for (auto& [host, copy] : copies_) {
    const std::size_t size = misalignment(host) + copy.size_bytes;
    copy.buffer = backend_->allocate(std::max<std::size_t>(size, 1), MemorySpace::kDevice);
    copy.data = copy.buffer.data() + misalignment(host);
    backend_->copy(stream, copy.data, host, copy.size_bytes);
  }
  stream.synchronize(soon());  // the host's memory is the test's again
}

void Mirrors::replace(Tensor& tensor) const {
  if (!tensor.has_data()) return;
  std::byte* data = copies_.at(tensor.bytes()).data;
  switch (tensor.num_dims()) {
    case 1:
      tensor = Tensor(data, tensor.dtype(), {tensor.dim(0)});
      return;
    case 2:
      tensor = Tensor(data, tensor.dtype(), {tensor.dim(0), tensor.dim(1)});
      return;
    case 3:
      tensor = Tensor(data, tensor.dtype(), {tensor.dim(0), tensor.dim(1), tensor.dim(2)});
      return;
    default:
      tensor = Tensor(data, tensor.dtype(), {tensor.dim(0), tensor.dim(1), tensor.dim(2), tensor.dim(3)});
  }
}

void Mirrors::copy_out(Stream& stream) {
  for (auto& [host, copy] : copies_) backend_->copy(stream, host, copy.data, copy.size_bytes);
  stream.synchronize(soon());
}

std::vector<Variant> every_backend() {
  std::vector<Variant> variants;
  for (const std::string& name : available_backends()) variants.push_back({.backend = name});
  return variants;
}

std::vector<Variant> every_gemm() {
  std::vector<Variant> variants;
  for (const std::string& name : available_backends()) {
    for (const bool deterministic : {false, true}) {
      variants.push_back({.backend = name, .deterministic = deterministic});
    }
  }
  return variants;
}

std::vector<Variant> every_deterministic() {
  std::vector<Variant> variants = every_gemm();
  std::erase_if(variants, [](const Variant& variant) { return !variant.deterministic; });
  return variants;
}

std::vector<Variant> every_way() {
  std::vector<Variant> variants = every_gemm();
  variants.push_back({.backend = "cpu", .worker_streams = true});
  return variants;
}

std::string variant_name(const testing::TestParamInfo<Variant>& info) {
  return testing::PrintToString(info.param);
}

void PrintTo(const Variant& variant, std::ostream* stream) {
  *stream << variant.backend << (variant.deterministic ? "_deterministic" : "")
          << (variant.worker_streams ? "_worker" : "");
}

}  // namespace aurora::kernel_test

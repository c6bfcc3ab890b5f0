// Any bytes as a safetensors file: a clear error, or tensors whose bytes are there and are as many as their
// shapes say.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/error.h"
#include "runtime/model/safetensors.h"

namespace {

void demand(bool holds) {
  if (!holds) std::abort();
}

void read_one(const aurora::Checkpoint& checkpoint, const std::string& name) {
  const aurora::StoredTensor& tensor = checkpoint.find(name);
  std::size_t num_elements = 1;
  for (const std::int64_t extent : tensor.shape) num_elements *= static_cast<std::size_t>(extent);
  demand(tensor.bytes.size() == num_elements * aurora::dtype_bytes(tensor.dtype));
  unsigned sum = 0;  // every byte is there to be read
  for (const std::byte byte : tensor.bytes) sum += std::to_integer<unsigned>(byte);
  demand(sum <= 255 * tensor.bytes.size());
  std::vector<float> values(num_elements);
  if (tensor.shape.size() == 1) {
    checkpoint.read(name, aurora::Tensor(values.data(), aurora::DType::kFloat32, {tensor.shape[0]}));
  } else if (tensor.shape.size() == 2) {
    checkpoint.read(
        name, aurora::Tensor(values.data(), aurora::DType::kBFloat16, {tensor.shape[0], tensor.shape[1]}));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto* const bytes = reinterpret_cast<const std::byte*>(data);
  try {
    const auto checkpoint = aurora::Checkpoint::parse({bytes, bytes + size}, "fuzz.safetensors");
    std::size_t total = 0;
    for (const std::string& name : checkpoint.names()) {
      demand(checkpoint.contains(name));
      try {
        read_one(checkpoint, name);
        total += checkpoint.find(name).bytes.size();
      } catch (const aurora::Error& error) {
        demand(error.kind() == aurora::ErrorKind::kUnsupported);  // a dtype without a DType
      }
    }
    demand(total <= size);
  } catch (const aurora::Error& error) {
    demand(error.kind() == aurora::ErrorKind::kFormat);
    demand(std::string(error.what()).starts_with("fuzz.safetensors"));
  }
  return 0;
}

#include "benchmarks/layer/shape.h"

#include <array>
#include <charconv>

#include "kernels/error.h"
#include "runtime/plan_io/nearest_name.h"

namespace aurora::bench {
namespace {

constexpr std::int64_t kMostExperts = 1 << 16;  // of a routing record
constexpr std::int64_t kMostWidth = 1 << 20;

[[noreturn]] void refuse(const std::string& text, const std::string& why) {
  throw Error(ErrorKind::kInvalidArgument, "--shape " + text + ": " + why);
}

/// The numbers between the letters x; empty when `text` is not made of such.
std::vector<std::int64_t> numbers_of(const std::string& text) {
  std::vector<std::int64_t> numbers;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (;;) {
    std::int64_t number = 0;
    const auto [next, error] = std::from_chars(at, end, number);
    if (error != std::errc()) return {};
    numbers.push_back(number);
    if (next == end) return numbers;
    if (*next != 'x') return {};
    at = next + 1;
  }
}

}  // namespace

std::span<const LayerShape> published_shapes() {
  static const std::array<LayerShape, 4> kShapes{{
      {"mixtral-8x7b", 8, 2, 4096, 14336},
      {"qwen3-30b-a3b", 128, 8, 2048, 768},
      {"olmoe-1b-7b", 64, 8, 2048, 1024},
      {"deepseek-v2-lite", 64, 6, 2048, 1408},
  }};
  return kShapes;
}

LayerShape parse_layer_shape(const std::string& text) {
  std::vector<std::string> names{"all"};
  for (const LayerShape& shape : published_shapes()) {
    if (shape.name == text) return shape;
    names.push_back(shape.name);
  }
  const std::vector<std::int64_t> numbers = numbers_of(text);
  if (numbers.size() != 4) {
    refuse(text, "unknown shape" + suggest_name(text, names) +
                     "; or give experts, top-k, hidden and inner as in 8x2x64x32");
  }
  const LayerShape shape{text, numbers[0], numbers[1], numbers[2], numbers[3]};
  if (shape.num_experts < 1 || shape.num_experts > kMostExperts) {
    refuse(text, "there may be 1 to " + std::to_string(kMostExperts) + " experts");
  }
  if (shape.top_k < 1 || shape.top_k > shape.num_experts) refuse(text, "top-k must be 1 to the experts");
  for (const std::int64_t width : {shape.hidden, shape.inner}) {
    if (width < 1 || width > kMostWidth) refuse(text, "widths may be 1 to " + std::to_string(kMostWidth));
  }
  return shape;
}

std::vector<LayerShape> parse_layer_shapes(const std::vector<std::string>& names) {
  std::vector<LayerShape> shapes;
  for (const std::string& name : names) {
    if (name == "all") {
      shapes.insert(shapes.end(), published_shapes().begin(), published_shapes().end());
    } else {
      shapes.push_back(parse_layer_shape(name));
    }
  }
  return shapes;
}

}  // namespace aurora::bench

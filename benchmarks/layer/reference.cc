#include "benchmarks/layer/reference.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <thread>

namespace aurora::bench {
namespace {

constexpr double kLambda = 8;
constexpr double kAdderRoundoff = 0x1p-23;
constexpr double kFloatRoundoff = 0x1p-24;

double squared(double value) { return value * value; }

/// Calls `use(first, last)` for ranges that cover [0, count), on all processors.
void in_parallel(std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& use) {
  const std::int64_t num_threads =
      std::clamp<std::int64_t>(std::thread::hardware_concurrency(), 1, std::max<std::int64_t>(count / 16, 1));
  std::vector<std::thread> threads;
  for (std::int64_t index = 0; index < num_threads; ++index) {
    threads.emplace_back(use, count * index / num_threads, count * (index + 1) / num_threads);
  }
  for (std::thread& thread : threads) thread.join();
}

/// A dot product and the largest error that a sum in float32 may have.
struct Dot {
  double value = 0;
  double error = 0;
};

Dot dot(const float* a, const float* b, std::int64_t count) {
  double value = 0;
  double magnitude = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double term = static_cast<double>(a[i]) * static_cast<double>(b[i]);
    value += term;
    magnitude += std::fabs(term);
  }
  return {value, kLambda * std::sqrt(static_cast<double>(count)) * kAdderRoundoff * magnitude};
}

/// The activations of one expert, [inner], and the largest single errors that they may have.
struct Activations {
  std::vector<double> values;
  std::vector<double> errors;
};

class ReferenceExpert {
 public:
  ReferenceExpert(const ReferenceLayer& layer, std::int64_t expert)
      : layer_(&layer),
        first_(expert * layer.shape.expert_elements()),
        roundoff_(layer.dtype == DType::kBFloat16 ? 0x1p-8 : kFloatRoundoff) {}

  Activations activations(const float* hidden) const {
    const std::int64_t inner = layer_->shape.inner;
    const std::int64_t width = layer_->shape.hidden;
    Activations result{std::vector<double>(static_cast<std::size_t>(inner)),
                       std::vector<double>(static_cast<std::size_t>(inner))};
    in_parallel(inner, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Dot gate = dot(layer_->weights.row(first_ + i * width), hidden, width);
        const Dot up = dot(layer_->weights.row(first_ + (inner + i) * width), hidden, width);
        const double sigmoid = 1 / (1 + std::exp(-gate.value));
        const double silu = gate.value * sigmoid;
        const double slope = sigmoid * (1 + gate.value * (1 - sigmoid));
        const double product = silu * up.value;
        const auto at = static_cast<std::size_t>(i);
        result.values[at] = product;
        // Gate and up: summed, then stored. The product: silu in a few float32 operations, then stored.
        result.errors[at] =
            std::sqrt(squared(slope * up.value * gate.error) +
                      squared(slope * up.value * gate.value * roundoff_) + squared(silu * up.error) +
                      2 * squared(product * roundoff_) + squared(16 * product * kFloatRoundoff));
      }
    });
    return result;
  }

  /// Adds `weight` times the output to `row`, whose tolerances are squares here.
  void add_output(const Activations& activations, double weight, ReferenceRow& row) const {
    const std::int64_t inner = layer_->shape.inner;
    const std::int64_t down = first_ + 2 * inner * layer_->shape.hidden;
    in_parallel(layer_->shape.hidden, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t column = begin; column < end; ++column) {
        const float* matrix_row = layer_->weights.row(down + column * inner);
        double value = 0;
        double magnitude = 0;
        double squares = 0;
        for (std::int64_t i = 0; i < inner; ++i) {
          const auto at = static_cast<std::size_t>(i);
          const auto element = static_cast<double>(matrix_row[i]);
          value += element * activations.values[at];
          magnitude += std::fabs(element * activations.values[at]);
          squares += squared(element * activations.errors[at]);
        }
        const double sum_error = kLambda * std::sqrt(static_cast<double>(inner)) * kAdderRoundoff * magnitude;
        const auto at = static_cast<std::size_t>(column);
        row.values[at] += weight * value;
        row.tolerances[at] += squared(weight) * (squared(kLambda) * (squares + squared(value * roundoff_) +
                                                                     squared(16 * value * kFloatRoundoff)) +
                                                 squared(sum_error));
      }
    });
  }

  double roundoff() const { return roundoff_; }

 private:
  const ReferenceLayer* layer_;
  std::int64_t first_;  // of the expert's elements
  double roundoff_;     // of the type that values are stored in
};

/// Softmax over the chosen experts.
std::vector<double> weights_of(const ReferenceLayer& layer, std::int64_t token,
                               std::span<const std::int32_t> experts) {
  std::vector<double> weights;
  double sum = 0;
  for (const std::int32_t expert : experts) {
    weights.push_back(std::exp(static_cast<double>(
        layer.logits[static_cast<std::size_t>(token * layer.shape.num_experts + expert)])));
    sum += weights.back();
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

}  // namespace

ReferenceRow reference_row(const ReferenceLayer& layer, std::int64_t token) {
  const auto hidden = static_cast<std::size_t>(layer.shape.hidden);
  const auto top_k = static_cast<std::size_t>(layer.shape.top_k);
  const auto experts =
      std::span(layer.routing.expert_ids).subspan(static_cast<std::size_t>(token) * top_k, top_k);
  const std::vector<double> weights = weights_of(layer, token, experts);
  ReferenceRow row{std::vector<double>(hidden), std::vector<double>(hidden)};
  double roundoff = 0;
  for (std::size_t k = 0; k < top_k; ++k) {
    const ReferenceExpert expert(layer, experts[k]);
    expert.add_output(expert.activations(layer.hidden.row(token * layer.shape.hidden)), weights[k], row);
    roundoff = expert.roundoff();
  }
  for (std::size_t column = 0; column < hidden; ++column) {
    row.tolerances[column] =
        std::sqrt(row.tolerances[column] + squared(kLambda * row.values[column] * roundoff));
  }
  return row;
}

std::int64_t count_wrong_elements(const ReferenceLayer& layer, std::span<const float> output,
                                  std::int64_t most_tokens, std::int64_t& num_checked) {
  const std::int64_t num_tokens = layer.routing.num_tokens;
  const std::int64_t count = std::min(num_tokens, most_tokens);
  std::int64_t num_wrong = 0;
  num_checked = 0;
  for (std::int64_t index = 0; index < count; ++index) {
    const std::int64_t token = index * num_tokens / count;
    const ReferenceRow row = reference_row(layer, token);
    for (std::int64_t column = 0; column < layer.shape.hidden; ++column) {
      const double value = output[static_cast<std::size_t>(token * layer.shape.hidden + column)];
      const double off = std::fabs(value - row.values[static_cast<std::size_t>(column)]);
      num_wrong += !(off <= row.tolerances[static_cast<std::size_t>(column)]);  // NaN is wrong
      ++num_checked;
    }
  }
  return num_wrong;
}

}  // namespace aurora::bench

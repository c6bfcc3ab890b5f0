#include "kernels/expert_bank.h"

#include "kernels/check_args.h"

namespace aurora {

ExpertBank::ExpertBank(std::span<const ExpertWeights> experts) : experts_(experts.begin(), experts.end()) {
  for (const ExpertWeights& expert : experts_) {
    check_shape(expert.gate, {inner(), hidden()}, "expert bank: gate");
    check_shape(expert.up, {inner(), hidden()}, "expert bank: up");
    check_shape(expert.down, {hidden(), inner()}, "expert bank: down");
    check(expert.gate.dtype() == dtype() && expert.up.dtype() == dtype() && expert.down.dtype() == dtype(),
          "expert bank: the experts' weights differ in dtype");
  }
}

}  // namespace aurora

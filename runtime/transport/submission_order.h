// The one order in which all ranks submit the exchanges of several models within a step.
//
// Two models' exchanges on one device need the same submission order on every rank, or collective transports
// deadlock. Each model's step has a known number of exchanges; the order merges the sequences in proportion,
// so that models of different depths finish together: next comes the model whose share of submitted exchanges
// is smallest, the lower index on a tie. Every rank computes the same sequence from the same counts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace aurora {

class SubmissionOrder {
 public:
  /// `num_exchanges[m]`: exchanges that model m submits in this step; 0 for a model that is not stepped.
  explicit SubmissionOrder(std::vector<std::int64_t> num_exchanges)
      : total_(std::move(num_exchanges)), submitted_(total_.size(), 0) {
    choose_next();
  }

  bool is_turn_of(std::size_t model) const { return next_ == model; }
  /// Call when model `model`, whose turn it is, has submitted one exchange.
  void advance() {
    ++submitted_[next_];
    choose_next();
  }

 private:
  void choose_next() {
    next_ = total_.size();
    for (std::size_t model = 0; model < total_.size(); ++model) {
      if (submitted_[model] == total_[model]) continue;
      // (submitted + 1) / total, compared by cross-multiplication.
      const bool is_first = next_ == total_.size() ||
                            (submitted_[model] + 1) * total_[next_] < (submitted_[next_] + 1) * total_[model];
      if (is_first) next_ = model;
    }
  }

  std::vector<std::int64_t> total_;
  std::vector<std::int64_t> submitted_;
  std::size_t next_ = 0;
};

}  // namespace aurora

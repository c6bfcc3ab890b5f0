// Which part of one source's tokens goes to which copy of an expert.
//
// A plan says which share of all of an expert's tokens each copy serves. Tokens of a GPU that has a copy
// should take that one: they cost no port. So every source sends to its own copy as much as the copy's share
// has room for, and what is left of all shares is spread over what is left of all sources, in proportion.
// Where the sources have equally many tokens the copies get exactly their shares, and no way of meeting the
// shares sends fewer tokens over the ports: a copy of share s takes min(s, 1/n) of all tokens from its own
// GPU, and it has no more of them than 1/n. A function of the plan alone, so every rank and the planner know
// the same.
#pragma once

#include <span>
#include <vector>

#include "scheduler/plan.h"

namespace aurora {

/// [replica] of the tokens of `source`, summing to 1.
std::vector<double> shares_from(std::span<const ExpertReplica> replicas, GpuId source, int num_gpus);

}  // namespace aurora

// A layer time below which no placement can get: what searches are measured against where trying all
// placements is out of the question.
//
// The layer time is built of maxima over GPUs. The maximum of some rows of a table is at least their mean
// under any weights, and once weights are chosen, what remains is a sum over experts of what each costs where
// it is put: every expert then goes to its cheapest GPU, and the sum of those least costs is a lower bound
// for all placements (the Lagrangian dual of the linear relaxation in which experts may be divided).
// Multiplicative weights (Freund and Schapire 1997) search for the best weights; every step gives a bound,
// and the largest counts. Beside it stands what the most awkward expert needs all by itself.
//
// A layer alone: the sum of its two maxima is bounded together and each by itself. Several models: every
// maximum of PhaseMaxima by itself, put into the recurrence of layer_time.h, which is monotone. Replicas are
// not considered. Where experts share rows (samples), rows are bounded by what is certain: a token that has
// experts elsewhere causes a row for each `top_k` pairs at least; the bound is then far from tight for
// exchanges, and tight for compute. Links inside nodes count as if all exchanges used the faster of both.
#pragma once

#include "scheduler/placement_problem.h"

namespace aurora {

/// Microseconds; O(num_steps * experts * GPUs) for each maximum.
double layer_time_bound_us(const LayerProblem& problem, int num_steps = 200);

}  // namespace aurora

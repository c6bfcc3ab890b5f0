// Among placements that the closed form cannot tell apart, the one that the event simulation prefers.
//
// The layer time of several models is made of maxima over GPUs (layer_time.h), a lower bound whose ends
// cannot always be met together. Many placements share its value or nearly so, while the simulation
// (timeline.h), with real priorities on GPUs and ports, tells them apart by several per cent. A descent from
// a placement that is good by the closed form changes places as long as the simulation falls and the closed
// form does not rise by more than a tolerance. A simulation costs a hundred times what a closed form does;
// there are few.
#pragma once

#include "scheduler/placement_problem.h"

namespace aurora {

struct SimulatedChoiceArgs {
  double tolerance = 0;     // part by which the closed form may exceed that of the start
  int max_simulations = 0;  // effort
};

/// The best by simulation of what was looked at, `start` included. Keeps to the slots of `problem`.
Assignment choose_by_simulation(const LayerProblem& problem, const Assignment& start,
                                const SimulatedChoiceArgs& args);

}  // namespace aurora

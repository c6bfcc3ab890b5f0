// How long a call takes: warm, many times in one process, and cold, the first time in a process of its own.
//
// Wall time is what a caller waits. CPU time of the thread leaves out what other programs on the machine took
// in between, so on a busy machine the two differ and the second is the steadier one.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace aurora::bench {

struct Elapsed {
  double wall_us = 0;
  double cpu_us = 0;  // of the calling thread
};

/// Median and deciles, by the nearest rank.
struct Quantiles {
  double p10 = 0;
  double median = 0;
  double p90 = 0;
};
/// Throws std::invalid_argument when there are no samples: an empty measurement is no measurement.
Quantiles quantiles_of(std::vector<double> samples);

/// One call of `call`.
Elapsed time_once(const std::function<void()>& call);

/// Calls `call(0)`, `call(1)`, ..., `call(num_inputs - 1)`, `call(0)`, ... until `seconds` of wall time have
/// passed and every input was used at least twice. A sample is the mean of as many calls as fill 100
/// microseconds, so that reading the clocks (a fraction of a microsecond) does not count.
std::vector<Elapsed> time_repeatedly(const std::function<void(std::size_t)>& call, std::size_t num_inputs,
                                     double seconds);

/// Runs `work` in a forked process and returns its result. Throws Error with the text of the exception when
/// it threw, or with the signal that ended it. The calling program must have one thread only.
std::string in_own_process(const std::function<std::string()>& work);

}  // namespace aurora::bench

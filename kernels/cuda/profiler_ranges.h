// NVTX ranges of the domain "aurora": what Nsight Systems shows beside the host's time and, as a projection,
// beside the kernels that were launched within. A range's message is its name, its category the group, its
// payload the number, so that nothing is formatted. Without a profiler each call is one comparison.
#pragma once

#include <nvtx3/nvToolsExt.h>

#include <cstddef>
#include <string>

#include "kernels/backend.h"

namespace aurora::cuda {

class ProfilerRanges {
 public:
  ProfilerRanges();
  ~ProfilerRanges();
  ProfilerRanges(const ProfilerRanges&) = delete;
  ProfilerRanges& operator=(const ProfilerRanges&) = delete;

  void open(const RangeLabel& label);
  void close();
  void name_group(std::size_t group, const std::string& name);

 private:
  nvtxDomainHandle_t domain_;  // null when no profiler was there at the start
};

}  // namespace aurora::cuda

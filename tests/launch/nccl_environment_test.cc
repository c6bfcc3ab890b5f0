#include "launch/nccl_environment.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/launch/scratch_folder.h"

namespace aurora {
namespace {

constexpr const char* kQueues = "CUDA_DEVICE_MAX_CONNECTIONS";

/// What is chosen where nothing was, with a daemon of MPS whose folder is `pipes`.
std::string queues_chosen(int num_processes, const std::filesystem::path& pipes) {
  setenv("CUDA_MPS_PIPE_DIRECTORY", pipes.c_str(), 1);
  unsetenv(kQueues);
  set_cuda_environment(num_processes);
  const std::string chosen = std::getenv(kQueues);
  unsetenv(kQueues);
  unsetenv("CUDA_MPS_PIPE_DIRECTORY");
  return chosen;
}

TEST(CudaEnvironment, ClientsOfMpsShareTheQueues) {
  const ScratchFolder folder;
  folder.write("control", "");
  EXPECT_EQ(queues_chosen(1, folder.path()), "8");
  EXPECT_EQ(queues_chosen(8, folder.path()), "8");
  EXPECT_EQ(queues_chosen(16, folder.path()), "4");
  EXPECT_EQ(queues_chosen(500, folder.path()), "2");
}

TEST(CudaEnvironment, WithoutMpsAProcessHasItsOwn) {
  const ScratchFolder folder;
  EXPECT_EQ(queues_chosen(8, folder.path()), "32");
}

TEST(CudaEnvironment, WhatTheUserHasSetStays) {
  setenv(kQueues, "1", 1);
  set_cuda_environment(8);
  EXPECT_STREQ(std::getenv(kQueues), "1");
  unsetenv(kQueues);
}

}  // namespace
}  // namespace aurora

#include "launch/nccl_environment.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <span>
#include <vector>

#include "runtime/transport/transport_registry.h"
#include "runtime/transport/wait.h"

namespace aurora {
namespace {

/// Before the engine, which numbers its own tags, has the transport.
constexpr std::uint32_t kSeatTag = 1;

void set_unless_set(const char* name, const std::string& value) { setenv(name, value.c_str(), 0); }

bool is_mps_running() {
  const char* folder = std::getenv("CUDA_MPS_PIPE_DIRECTORY");
  std::error_code ignored;
  return std::filesystem::exists(
      std::filesystem::path(folder == nullptr ? "/tmp/nvidia-mps" : folder) / "control", ignored);
}

std::string remark_on_sharing(std::size_t num_ranks, std::size_t num_gpus) {
  std::string text = std::to_string(num_ranks) + " ranks on " + std::to_string(num_gpus) +
                     (num_gpus == 1 ? " GPU" : " GPUs") + ": NCCL runs over sockets between ranks";
  if (!is_mps_running()) {
    text +=
        ", and the ranks of a GPU take turns; start MPS (nvidia-cuda-mps-control -d) for much faster "
        "exchanges";
  }
  return text;
}

}  // namespace

void set_cuda_environment(int num_processes) {
  constexpr int kMostOfAllClients = 64;
  constexpr int kMostOfClient = 8;
  constexpr int kLeastOfClient = 2;
  constexpr int kWithoutMps = 32;
  const int of_client = std::clamp(kMostOfAllClients / num_processes, kLeastOfClient, kMostOfClient);
  set_unless_set("CUDA_DEVICE_MAX_CONNECTIONS", std::to_string(is_mps_running() ? of_client : kWithoutMps));
}

GpuSeat take_gpu_seat(const MpiSession& session, Transport& transport, std::chrono::milliseconds timeout) {
  set_unless_set("NCCL_NVLS_ENABLE", "0");
  const std::vector<std::string> gpus = visible_gpu_uuids();
  GpuSeat seat;
  if (!gpus.empty()) seat.device = session.local_rank() % static_cast<int>(gpus.size());
  const std::string own = gpus.empty() ? "" : gpus[static_cast<std::size_t>(seat.device)];
  const auto all = all_gather(transport, std::as_bytes(std::span(own)), kSeatTag,
                              std::chrono::steady_clock::now() + timeout, "the GPUs of all ranks");
  std::map<std::string, int> num_users;
  for (const std::vector<std::byte>& gpu : all) {
    if (gpu.empty()) continue;  // a rank without a GPU is told so by the transport
    ++num_users[std::string(reinterpret_cast<const char*>(gpu.data()), gpu.size())];
  }
  seat.is_shared =
      std::any_of(num_users.begin(), num_users.end(), [](const auto& gpu) { return gpu.second > 1; });
  if (!seat.is_shared) return seat;
  set_unless_set("NCCL_HOSTID", session.processor_name() + "-rank-" + std::to_string(session.rank()));
  if (session.num_local_ranks() == session.num_ranks()) {
    set_unless_set("NCCL_SOCKET_IFNAME", "lo");
    set_unless_set("NCCL_IB_DISABLE", "1");
  }
  seat.remark = remark_on_sharing(all.size(), num_users.size());
  return seat;
}

}  // namespace aurora

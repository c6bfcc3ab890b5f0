// Runs one function per rank, each on a thread of its own, over a ThreadFabric; an exception of any rank
// aborts the others and is rethrown here, the lowest rank's own error first.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/error.h"
#include "runtime/transport/thread_transport.h"

namespace aurora::test {

inline void run_ranks(int num_ranks, const std::function<void(Transport&)>& work) {
  ThreadFabric fabric(num_ranks);
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(num_ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) {
    threads.emplace_back([&, rank] {
      const std::unique_ptr<Transport> transport = fabric.connect(rank);
      try {
        work(*transport);
      } catch (const std::exception& error) {
        failures[rank] = std::current_exception();
        transport->abort(error.what());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  // A rank that was told of the failure only says so; the cause is the other one's.
  std::exception_ptr told;
  for (const std::exception_ptr& failure : failures) {
    if (failure == nullptr) continue;
    try {
      std::rethrow_exception(failure);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kAborted) throw;
      told = failure;
    }
  }
  if (told != nullptr) std::rethrow_exception(told);
}

}  // namespace aurora::test

// The engine over MPI: all references of both example models together, on as many ranks as mpirun started.
#include <iostream>

#include "runtime/transport/mpi_session.h"
#include "runtime/transport/mpi_transport.h"
#include "tests/support/engine_harness.h"
#include "tests/support/plan_changes.h"

namespace aurora {
namespace {

/// Number of answers that differ from the reference, and of plan changes that should have been and were not.
int run_references(Transport& transport, const EngineOptions& options, bool worker_streams = false) {
  std::map<RequestId, test::ReferencePrompt> expected;
  test::ListFeed feed(test::reference_requests(expected), 7);
  const auto backend =
      create_backend("cpu", {.deterministic = options.deterministic, .worker_streams = worker_streams});
  Engine engine(options, transport, *backend);
  engine.run(transport.rank() == 0 ? &feed : nullptr);
  if (transport.rank() != 0) return 0;
  int num_wrong = feed.results().size() == expected.size() ? 0 : 1;
  if (options.replan.mode != ReplanMode::kOff && engine.report().replan.switches.size() < 3) {
    std::cerr << engine.report().replan.switches.size() << " changes of plans\n";
    ++num_wrong;
  }
  for (const auto& [id, result] : feed.results()) {
    if (result.token_ids == expected[id].greedy_ids && result.text == expected[id].greedy_text) continue;
    std::cerr << "wrong answer to " << expected[id].prompt << ": " << result.text << '\n';
    ++num_wrong;
  }
  return num_wrong;
}

EngineOptions options_with(Schedule schedule, bool deterministic) {
  EngineOptions options = test::example_options();
  options.deterministic = deterministic;
  options.schedule = schedule;
  return options;
}

/// All experts move to other ranks again and again.
EngineOptions changing_options() {
  EngineOptions options = test::example_options();
  options.decode_steps = 1;  // so that plans change often
  options.replan.mode = ReplanMode::kInterval;
  options.replan.interval_steps = 3;
  options.replan.propose = test::rotated;
  return options;
}

}  // namespace
}  // namespace aurora

int main() {
  try {
    aurora::MpiSession session;
    const auto transport = aurora::create_mpi_transport(session);
    int num_wrong = 0;
    for (const aurora::Schedule schedule : aurora::kSchedules) {
      num_wrong += aurora::run_references(*transport, aurora::options_with(schedule, false), true);
      num_wrong += aurora::run_references(*transport, aurora::options_with(schedule, true));
    }
    num_wrong += aurora::run_references(*transport, aurora::changing_options());
    if (transport->rank() == 0)
      std::cout << num_wrong << " wrong answers on " << transport->num_ranks() << " ranks\n";
    return num_wrong == 0 ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}

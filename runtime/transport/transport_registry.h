// Which transports this build has, by name. Their creation differs (a fabric of threads, an MPI session), so
// the registry answers what exists and refuses what does not; whoever starts the ranks creates them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace aurora {

/// For example {"mpi", "threads"}.
std::vector<std::string> available_transports();

/// Throws kUnsupported for a name that this build lacks; the text lists what is there.
void require_transport(std::string_view name);

}  // namespace aurora

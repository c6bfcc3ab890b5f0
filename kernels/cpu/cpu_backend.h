// The CPU backend: the readable reference of every operation, and fast enough to serve.
//
// Memory is the host's, so both memory spaces are the same. Streams run inside the submitting call, or on a
// thread of their own when the options ask for worker streams.
#pragma once

#include <memory>

#include "kernels/backend_registry.h"

namespace aurora {

std::unique_ptr<Backend> create_cpu_backend(const BackendOptions& options);

}  // namespace aurora

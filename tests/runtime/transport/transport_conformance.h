// What every transport owes, as one list of cases that run over each of them.
//
// A case is a function that every rank of a job runs at once with a transport of its own, made for this case
// alone. It uses GoogleTest's EXPECT macros, which work on any thread and in any process. All waits have
// deadlines.
#pragma once

#include <iosfwd>
#include <span>

#include "runtime/transport/transport.h"

namespace aurora {

struct ConformanceCase {
  const char* name;  // a sentence without spaces, as GoogleTest wants it
  void (*run)(Transport& transport);
};

std::span<const ConformanceCase> conformance_cases();

void PrintTo(const ConformanceCase& conformance_case, std::ostream* out);

}  // namespace aurora

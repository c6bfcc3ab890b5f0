// What a piece of work says when it fails, to be looked into by a test.
#pragma once

#include <string>

#include "kernels/error.h"

namespace aurora::test {

/// The words of the Error that `work` throws, or that it threw none.
template <class Work>
std::string thrown_by(Work work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace aurora::test

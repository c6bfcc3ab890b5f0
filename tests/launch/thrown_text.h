// What a call throws, as one string: "kind: text", or "" when it throws nothing.
#pragma once

#include <string>

#include "kernels/error.h"

namespace aurora {

template <class Call>
std::string thrown_text(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return std::string(error_kind_name(error.kind())) + ": " + error.what();
  }
  return "";
}

}  // namespace aurora

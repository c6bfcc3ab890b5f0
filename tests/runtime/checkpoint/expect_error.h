// What a checkpoint that is wrong must bring about: one Error of a kind, whose text names what a person
// needs.
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <string_view>

#include "kernels/error.h"

namespace aurora {

/// Fails unless `action` throws Error of `kind` with all of `parts` in its text.
template <typename Action>
void expect_error(const Action& action, ErrorKind kind, std::initializer_list<std::string_view> parts) {
  try {
    action();
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_EQ(error_kind_name(error.kind()), error_kind_name(kind)) << text;
    for (const std::string_view part : parts) {
      EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is missing in: " << text;
    }
    return;
  }
  ADD_FAILURE() << "nothing was thrown";
}

}  // namespace aurora

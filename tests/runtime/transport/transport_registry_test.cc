#include "runtime/transport/transport_registry.h"

#include <gtest/gtest.h>

#include <string>

#include "kernels/error.h"

namespace aurora {
namespace {

TEST(TransportRegistry, AcceptsWhatItLists) {
  EXPECT_FALSE(available_transports().empty());
  for (const std::string& name : available_transports()) EXPECT_NO_THROW(require_transport(name)) << name;
}

TEST(TransportRegistry, RefusesOthersAndListsWhatThereIs) {
  for (const std::string name : {"", "MPI", "pigeons"}) {
    try {
      require_transport(name);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
      const std::string text = error.what();
      EXPECT_NE(text.find('"' + name + '"'), std::string::npos) << text;
      for (const std::string& present : available_transports()) {
        EXPECT_NE(text.find(present), std::string::npos) << text;
      }
    }
  }
}

}  // namespace
}  // namespace aurora

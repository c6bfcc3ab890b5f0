// Fabric files: what is written is read back, and what is wrong is refused with its place and value.
#include "runtime/plan_io/fabric_file.h"

#include <gtest/gtest.h>

#include "tests/support/thrown_by.h"

namespace aurora {
namespace {

MeasuredFabric measured_fabric() {
  MeasuredFabric fabric;
  fabric.model.execution = ExchangeExecution::kBatches;
  fabric.model.start_us = 7.5;
  fabric.model.messages = {{1024, 12.25}, {4096, 0}};
  fabric.model.groups = {{2, 3.5, 1}, {7, 0.1, 1.3}};
  fabric.model.uneven_stretch = 1.2;
  fabric.model.orders = {{OrderPolicy::kGroup, 1}, {OrderPolicy::kShortestFirst, 1.1, 2.5, 10}};
  fabric.ports_gbps = {0.2, 100};
  return fabric;
}
const MeasuredFabric kMeasured = measured_fabric();

using test::thrown_by;

TEST(FabricFile, ReadsBackWhatItWrote) {
  const MeasuredFabric read = parse_fabric(fabric_text(kMeasured), "fabric.json");
  EXPECT_EQ(read.ports_gbps, kMeasured.ports_gbps);
  EXPECT_EQ(read.model.execution, ExchangeExecution::kBatches);
  EXPECT_EQ(read.model.start_us, 7.5);
  ASSERT_EQ(read.model.messages.size(), 2U);
  EXPECT_EQ(read.model.messages[0].extra_us, 12.25);
  ASSERT_EQ(read.model.groups.size(), 2U);
  EXPECT_EQ(read.model.groups[1].stretch, 1.3);
  EXPECT_EQ(read.model.uneven_stretch, 1.2);
  EXPECT_EQ(read.model.order_cost(OrderPolicy::kShortestFirst).stretch, 1.1);
  EXPECT_EQ(read.model.order_cost(OrderPolicy::kShortestFirst).extra_of(4), 1);
  EXPECT_EQ(read.model.order_cost(OrderPolicy::kShortestFirst).extra_of(40), 2.5);
  EXPECT_EQ(read.model.order_cost(OrderPolicy::kExact).stretch, 1) << "without an entry";
  EXPECT_EQ(read.model.order_cost(OrderPolicy::kExact).extra_us, 0);
  EXPECT_EQ(fabric_text(read), fabric_text(kMeasured));
}

TEST(FabricFile, NamesThePlaceOfEveryMistake) {
  const auto broken = [&](const std::string& from, const std::string& to) {
    std::string text = fabric_text(kMeasured);
    text.replace(text.find(from), from.size(), to);
    return thrown_by([&] { parse_fabric(text, "f.json"); });
  };
  const auto expect_named = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  expect_named(broken("\"batches\"", "\"batched\""), "f.json: execution: must be \"lanes\" or \"batches\"");
  expect_named(broken("\"stretch\": 1.3", "\"stretch\": 0.3"), "f.json: groups[1].stretch: is below 1");
  expect_named(broken("\"uneven_stretch\": 1.2", "\"uneven_stretch\": 0.2"),
               "f.json: uneven_stretch: is below 1");
  expect_named(broken("\"bytes\": 4096.0", "\"bytes\": 1024"), "f.json: messages[1]: is not larger");
  expect_named(broken("\"extra_us\": 12.25", "\"extra_us\": -1"), "f.json: messages[0].extra_us");
  expect_named(broken("\"sjf\"", "\"auto\""), "f.json: orders[1].order: is no order that can be planned");
  expect_named(broken("\"messages\"", "\"mesages\""), "did you mean \"messages\"");
  expect_named(broken("\"version\": 1", "\"version\": 2"), "f.json: version");
  expect_named(thrown_by([] { parse_fabric("{", "f.json"); }), "f.json");
}

TEST(FabricFile, BelongsToThePortsThatItWasMeasuredWith) {
  EXPECT_NO_THROW(check_same_ports(kMeasured, {0.21, 95}, "f.json"));
  const std::string other_port = thrown_by([] { check_same_ports(kMeasured, {0.2, 80}, "f.json"); });
  EXPECT_NE(other_port.find("rank 1"), std::string::npos) << other_port;
  EXPECT_NE(other_port.find("measure it anew"), std::string::npos) << other_port;
  const std::string other_number = thrown_by([] { check_same_ports(kMeasured, {0.2}, "f.json"); });
  EXPECT_NE(other_number.find("by 2 ranks, but there are 1"), std::string::npos) << other_number;
}

}  // namespace
}  // namespace aurora

// Cluster descriptions: what a person writes becomes GPUs in file order; mistakes are named with line and
// value.
#include "runtime/plan_io/cluster_file.h"

#include <gtest/gtest.h>

#include <random>

#include "kernels/error.h"

namespace aurora {
namespace {

const char* const kGood = R"(version = 1
link_gbps = 400
[[gpu]]
count = 2
compute = 1.5
port_gbps = 100
memory_gb = 80
node = 3
[[gpu]]
port_gbps = 40.5
)";

std::string refusal(const std::string& text) {
  try {
    parse_cluster(text, "c.toml");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kFormat);
    return error.what();
  }
  return "nothing was thrown";
}

std::string refusal_of(const std::string& from, const std::string& to) {
  std::string text = kGood;
  text.replace(text.find(from), from.size(), to);
  return refusal(text);
}

TEST(ClusterFile, NumbersGpusInFileOrder) {
  const ClusterSpec cluster = parse_cluster(kGood, "c.toml");
  ASSERT_EQ(cluster.num_gpus(), 3);
  EXPECT_EQ(cluster.gpus[0], (ClusterGpu{1.5, 100, 80e9, 3}));
  EXPECT_EQ(cluster.gpus[1], cluster.gpus[0]);
  EXPECT_EQ(cluster.gpus[2], (ClusterGpu{1, 40.5, 0, 0}));
  EXPECT_EQ(cluster.link_gbps, 400);
  EXPECT_DOUBLE_EQ(port_bandwidths(cluster)[0], 12500) << "bytes per microsecond";
}

TEST(ClusterFile, NamesLineKeyAndValueOfMistakes) {
  const auto contains = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  contains(refusal_of("count = 2", "counts = 2"),
           "c.toml: line 4: [[gpu]] block 1: unknown key \"counts\"; did you");
  contains(refusal_of("link_gbps", "link_gpbs"), "did you mean \"link_gbps\"");
  contains(refusal_of("count = 2", "count = 0"), "line 4: [[gpu]] block 1: count must be an integer from 1");
  contains(refusal_of("count = 2", "count = 2.5"), "count must be an integer");
  contains(refusal_of("count = 2", "count = 70000"), "count must be an integer from 1 to 65536, not 70000");
  contains(refusal_of("port_gbps = 100", "port_gbps = 0"), "line 6: [[gpu]] block 1: port_gbps is 0");
  contains(refusal_of("port_gbps = 100", "port_gbps = \"fast\""), "port_gbps must be a number");
  contains(refusal_of("port_gbps = 100", "port_gbps = inf"), "it must be finite");
  contains(refusal_of("port_gbps = 40.5", ""), "line 9: [[gpu]] block 2: port_gbps is missing");
  contains(refusal_of("compute = 1.5", "compute = -1"), "compute is -1");
  contains(refusal_of("version = 1", "version = 2"), "version must be an integer from 1 to 1, not 2");
  contains(refusal_of("[[gpu]]", "[gpu]"), "c.toml: line");
  contains(refusal("version = 1"), "describes no GPU");
  contains(refusal("gpu = 3"), "gpu must be a list of tables");
  contains(refusal("a = [1,"), "c.toml: line 1");
  EXPECT_THROW(read_cluster_file("/nonexistent/c.toml"), Error);
}

TEST(ClusterFile, IsReadAsItWasWritten) {
  const ClusterSpec cluster = parse_cluster(kGood, "c.toml");
  EXPECT_EQ(parse_cluster(cluster_text(cluster), "written"), cluster);
  std::mt19937 random(6);
  std::uniform_real_distribution<double> number(1e-6, 1e6);
  ClusterSpec uneven{.gpus = {}, .link_gbps = 1.0 / 3};
  for (int gpu = 0; gpu < 20; ++gpu) {
    if (gpu % 3 == 0) uneven.gpus.push_back({number(random), number(random), 0, gpu % 4});
    uneven.gpus.push_back(uneven.gpus.back());  // neighbours that are alike
  }
  EXPECT_EQ(parse_cluster(cluster_text(uneven), "written"), uneven);
  EXPECT_EQ(cluster_text(uniform_cluster(8, 100)),
            "version = 1\n\n[[gpu]]\ncount = 8\ncompute = 1\nport_gbps = 100\nnode = 0\n");
}

TEST(ClusterFile, SurvivesRandomMutations) {
  std::mt19937 random(5);
  for (int round = 0; round < 3000; ++round) {
    std::string text = kGood;
    for (unsigned change = 0; change <= random() % 4; ++change) {
      text[random() % text.size()] = "0123456789[]=\"'-+e.x_\n #\xff"[random() % 25];
    }
    try {
      validate(parse_cluster(text, "mutated"));
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kFormat) << error.what();
    }
  }
}

}  // namespace
}  // namespace aurora

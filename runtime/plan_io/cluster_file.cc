#include "runtime/plan_io/cluster_file.h"

#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "kernels/error.h"
#include "runtime/plan_io/nearest_name.h"
#include "runtime/plan_io/text_file.h"

namespace aurora {
namespace {

/// Larger than any cluster; a bound on what `count` can make us allocate.
constexpr std::int64_t kMaxGpus = 1 << 16;

/// A table of the file, its keys and its values, with complaints that name file and line.
class TomlPlace {
 public:
  TomlPlace(const toml::table& table, std::string origin, std::string name)
      : table_(&table), origin_(std::move(origin)), name_(std::move(name)) {}

  [[noreturn]] void refuse(const toml::node& node, const std::string& text) const {
    throw Error(ErrorKind::kFormat,
                origin_ + ": line " + std::to_string(node.source().begin.line) + ": " + name_ + text);
  }

  void expect_keys(const std::vector<std::string>& known) const {
    for (const auto& [key, node] : *table_) {
      const std::string name(key.str());
      if (std::find(known.begin(), known.end(), name) != known.end()) continue;
      refuse(node, "unknown key \"" + name.substr(0, 64) + "\"" + suggest_name(name.substr(0, 64), known));
    }
  }

  const toml::node* find(const char* key) const { return table_->get(key); }

  /// A finite number, integer or not.
  double number(const char* key, double otherwise, bool may_be_zero) const {
    const toml::node* node = find(key);
    if (node == nullptr) return otherwise;
    const auto value = node->value<double>();
    if (!node->is_number() || !value) refuse(*node, std::string(key) + " must be a number");
    if (std::isfinite(*value) && (*value > 0 || (may_be_zero && *value == 0))) return *value;
    refuse(*node, std::string(key) + " is " + std::to_string(*value) + "; it must be finite and " +
                      (may_be_zero ? "not negative" : "above 0"));
  }

  std::int64_t integer(const char* key, std::int64_t otherwise, std::int64_t low, std::int64_t high) const {
    const toml::node* node = find(key);
    if (node == nullptr) return otherwise;
    const std::string range =
        " must be an integer from " + std::to_string(low) + " to " + std::to_string(high);
    if (!node->is_integer()) refuse(*node, key + range);
    const std::int64_t value = node->as_integer()->get();
    if (value < low || value > high) refuse(*node, key + range + ", not " + std::to_string(value));
    return value;
  }

 private:
  const toml::table* table_;
  std::string origin_;
  std::string name_;  // "gpu 2: ", empty at the top
};

/// Appends the GPUs of one [[gpu]] block.
void read_gpus(const TomlPlace& place, const toml::table& table, ClusterSpec& cluster) {
  place.expect_keys({"count", "compute", "port_gbps", "memory_gb", "node"});
  if (place.find("port_gbps") == nullptr)
    place.refuse(table, "port_gbps is missing; it is the speed of a GPU's port");
  ClusterGpu gpu;
  gpu.compute = place.number("compute", gpu.compute, false);
  gpu.port_gbps = place.number("port_gbps", gpu.port_gbps, false);
  gpu.memory_bytes = place.number("memory_gb", 0, true) * 1e9;
  gpu.node = static_cast<int>(place.integer("node", 0, 0, std::numeric_limits<int>::max()));
  const std::int64_t count = place.integer("count", 1, 1, kMaxGpus);
  if (cluster.num_gpus() + count > kMaxGpus) {
    place.refuse(table, "brings the cluster to " + std::to_string(cluster.num_gpus() + count) +
                            " GPUs; at most " + std::to_string(kMaxGpus) + " are planned for");
  }
  cluster.gpus.insert(cluster.gpus.end(), static_cast<std::size_t>(count), gpu);
}

ClusterSpec read_cluster(const toml::table& table, const std::string& origin) {
  const TomlPlace root(table, origin, "");
  root.expect_keys({"version", "link_gbps", "gpu"});
  root.integer("version", 1, 1, 1);
  ClusterSpec cluster;
  cluster.link_gbps = root.number("link_gbps", 0, true);
  const toml::node* blocks = root.find("gpu");
  if (blocks == nullptr) {
    throw Error(ErrorKind::kFormat, origin + ": it describes no GPU; add a [[gpu]] block");
  }
  if (!blocks->is_array_of_tables()) root.refuse(*blocks, "gpu must be a list of tables; write [[gpu]]");
  std::size_t index = 0;
  for (const toml::node& block : *blocks->as_array()) {
    const toml::table& gpu = *block.as_table();
    read_gpus(TomlPlace(gpu, origin, "[[gpu]] block " + std::to_string(++index) + ": "), gpu, cluster);
  }
  return cluster;
}

/// The shortest text that reads as the same number.
std::string number_text(double value) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value);
  check(end.ec == std::errc(), "a number has at most 32 characters");
  return {text.data(), end.ptr};
}

}  // namespace

std::string cluster_text(const ClusterSpec& cluster) {
  std::string text = "version = 1\n";
  if (cluster.link_gbps > 0) text += "link_gbps = " + number_text(cluster.link_gbps) + "\n";
  for (std::size_t first = 0; first < cluster.gpus.size();) {
    const ClusterGpu& gpu = cluster.gpus[first];
    std::size_t count = 1;
    while (first + count < cluster.gpus.size() && cluster.gpus[first + count] == gpu) ++count;
    text += "\n[[gpu]]\ncount = " + std::to_string(count) + "\ncompute = " + number_text(gpu.compute) +
            "\nport_gbps = " + number_text(gpu.port_gbps) + "\n";
    if (gpu.memory_bytes > 0) text += "memory_gb = " + number_text(gpu.memory_bytes / 1e9) + "\n";
    text += "node = " + std::to_string(gpu.node) + "\n";
    first += count;
  }
  return text;
}

ClusterSpec parse_cluster(std::string_view text, const std::string& origin) {
  toml::table table;
  try {
    table = toml::parse(text, origin);
  } catch (const toml::parse_error& error) {
    throw Error(ErrorKind::kFormat, origin + ": line " + std::to_string(error.source().begin.line) + ": " +
                                        std::string(error.description()));
  }
  ClusterSpec cluster = read_cluster(table, origin);
  try {
    validate(cluster);
  } catch (const std::invalid_argument& error) {
    throw Error(ErrorKind::kFormat, origin + ": " + error.what());
  }
  return cluster;
}

ClusterSpec read_cluster_file(const std::filesystem::path& file) {
  return parse_cluster(read_whole_file(file), file.string());
}

}  // namespace aurora

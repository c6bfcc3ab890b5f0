#include "benchmarks/comparison.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "kernels/error.h"

namespace aurora::bench {
namespace {

struct Measured {
  double median = 0;
  std::int64_t num_wrong = 0;
};
using Run = std::map<std::string, Measured>;  // by suite and row

Run parse_run(const std::string& lines, const std::string& side) {
  Run run;
  std::istringstream stream(lines);
  int number = 0;
  for (std::string line; std::getline(stream, line);) {
    ++number;
    if (line.empty()) continue;
    try {
      const nlohmann::json row = nlohmann::json::parse(line);
      const std::string name = row.at("suite").get<std::string>() + " " + row.at("row").get<std::string>();
      const Measured measured{row.at("median").get<double>(), row.at("wrong").get<std::int64_t>()};
      if (!(measured.median > 0)) throw Error(ErrorKind::kFormat, "the median is not above zero");
      if (!run.emplace(name, measured).second) throw Error(ErrorKind::kFormat, "a second row " + name);
    } catch (const std::exception& error) {
      throw Error(ErrorKind::kFormat, side + ", line " + std::to_string(number) + ": " + error.what());
    }
  }
  if (run.empty()) throw Error(ErrorKind::kFormat, side + ": no rows");
  return run;
}

}  // namespace

Comparison compare_runs(const std::string& before, const std::string& after, double most_ratio) {
  const Run old_run = parse_run(before, "before");
  const Run new_run = parse_run(after, "after");
  std::ostringstream text;
  text.setf(std::ios::fixed);
  text.precision(3);
  bool is_good = true;
  const auto complain = [&](const std::string& complaint) {
    text << "FAILED: " << complaint << '\n';
    is_good = false;
  };
  for (const auto& [name, measured] : old_run) {
    const auto found = new_run.find(name);
    if (found == new_run.end()) {
      complain(name + " is missing after");
      continue;
    }
    const double ratio = found->second.median / measured.median;
    text << name << ": " << measured.median << " -> " << found->second.median << ", ratio " << ratio << '\n';
    if (ratio > most_ratio) complain(name + " takes longer than allowed");
    if (measured.num_wrong + found->second.num_wrong > 0) complain(name + " has wrong results");
  }
  for (const auto& [name, measured] : new_run) {
    if (old_run.count(name) == 0) complain(name + " is missing before");
  }
  return {text.str(), is_good};
}

}  // namespace aurora::bench

#include "benchmarks/row.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "launch/build_stamp.h"

namespace aurora::bench {
namespace {

/// Four significant digits, never an exponent.
std::string shown(double value) {
  std::array<char, 64> text{};
  const double size = std::abs(value);
  const int decimals = size == 0 ? 0 : size < 10 ? 3 : size < 100 ? 2 : size < 1000 ? 1 : 0;
  std::snprintf(text.data(), text.size(), "%.*f", decimals, value);
  return text.data();
}

std::string shown(const Cell& cell) {
  if (const auto* text = std::get_if<std::string>(&cell)) return *text;
  if (const auto* number = std::get_if<double>(&cell)) return shown(*number);
  return std::to_string(std::get<std::int64_t>(cell));
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

std::string padded(const std::string& text, std::size_t width, bool is_number) {
  const std::string space(width - text.size(), ' ');
  return is_number ? space + text : text + space;
}

}  // namespace

Row& Row::set(std::string column, std::int64_t value) {
  cells_.emplace_back(std::move(column), value);
  return *this;
}

Row& Row::set(std::string column, double value) {
  cells_.emplace_back(std::move(column), std::strtod(shown(value).c_str(), nullptr));
  return *this;
}

Row& Row::set(std::string column, std::string value) {
  cells_.emplace_back(std::move(column), std::move(value));
  return *this;
}

const Cell* Row::find(std::string_view column) const {
  for (const auto& [name, cell] : cells_) {
    if (name == column) return &cell;
  }
  return nullptr;
}

Stamp stamp_now(std::uint64_t seed) {
  Stamp stamp{.commit = kCommit,
              .compiler = kCompiler,
              .build_type = kBuildType,
              .processor = processor_name(),
              .seed = seed};
  if (getloadavg(&stamp.load, 1) != 1) stamp.load = 0;
  return stamp;
}

std::string json_line(const Row& row, const Stamp& stamp) {
  nlohmann::ordered_json object{{"suite", row.suite()}, {"row", row.name()}};
  for (const auto& [column, cell] : row.cells()) {
    std::visit([&, &name = column](const auto& value) { object[name] = value; }, cell);
  }
  object["stamp"] = {
      {"commit", stamp.commit},       {"compiler", stamp.compiler}, {"build_type", stamp.build_type},
      {"processor", stamp.processor}, {"load", stamp.load},         {"seed", stamp.seed}};
  return object.dump() + "\n";
}

std::string table(const std::vector<Row>& rows, const Stamp& stamp) {
  std::vector<std::string> columns{"row"};
  for (const Row& row : rows) {
    for (const auto& [column, cell] : row.cells()) {
      if (std::find(columns.begin(), columns.end(), column) == columns.end()) columns.push_back(column);
    }
  }
  std::vector<std::vector<std::string>> lines{columns};
  for (const Row& row : rows) {
    std::vector<std::string>& line = lines.emplace_back(1, row.name());
    for (std::size_t index = 1; index < columns.size(); ++index) {
      const Cell* cell = row.find(columns[index]);
      line.push_back(cell == nullptr ? "-" : shown(*cell));
    }
  }
  std::vector<std::size_t> widths(columns.size());
  for (const auto& line : lines) {
    for (std::size_t index = 0; index < line.size(); ++index) {
      widths[index] = std::max(widths[index], line[index].size());
    }
  }
  std::string text;
  for (const auto& line : lines) {
    for (std::size_t index = 0; index < line.size(); ++index) {
      text += (index > 0 ? "  " : "") + padded(line[index], widths[index], index > 0);
    }
    text += '\n';
  }
  return text + "commit " + stamp.commit + ", " + stamp.compiler + ", " + stamp.build_type + ", " +
         stamp.processor + ", load " + shown(stamp.load) + ", seed " + std::to_string(stamp.seed) + "\n";
}

}  // namespace aurora::bench

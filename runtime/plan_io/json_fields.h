// Strict reading of the JSON files that people and programs hand to the planner: every key is known, every
// value has its type and lies within its limits, and every complaint names the file and the place in it. For
// .cc files only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/error.h"
#include "runtime/plan_io/nearest_name.h"
#include "runtime/plan_io/text_file.h"

namespace aurora {

/// A JSON value and where it stands: "plan.json: models[0].layers[3]".
class JsonPlace {
 public:
  JsonPlace(const nlohmann::json& value, std::string place) : value_(&value), place_(std::move(place)) {}

  const nlohmann::json& value() const { return *value_; }
  [[noreturn]] void refuse(const std::string& text) const {
    throw Error(ErrorKind::kFormat, place_ + (is_whole_file() ? "" : ": ") + text);
  }

  /// Refuses anything but an object whose keys are all among `known`.
  void expect_keys(std::initializer_list<const char*> known) const {
    if (!value_->is_object()) refuse("must be an object");
    const std::vector<std::string> names(known.begin(), known.end());
    for (const auto& [key, unused] : value_->items()) {
      if (std::find(names.begin(), names.end(), key) != names.end()) continue;
      refuse("unknown key \"" + key.substr(0, 64) + "\"" + suggest_name(key.substr(0, 64), names));
    }
  }
  bool has(const char* key) const { return value_->contains(key); }

  JsonPlace at(const char* key) const {
    const auto found = value_->find(key);
    if (found == value_->end()) refuse("key \"" + std::string(key) + "\" is missing");
    return {*found, place_ + (is_whole_file() ? "" : ".") + key};
  }
  JsonPlace at(std::size_t index) const {
    return {(*value_)[index], place_ + "[" + std::to_string(index) + "]"};
  }
  std::size_t size_of_list() const {
    if (!value_->is_array()) refuse("must be a list");
    return value_->size();
  }

  std::string text() const {
    if (!value_->is_string()) refuse("must be a string" + shown());
    return value_->get<std::string>();
  }
  std::int64_t integer(std::int64_t low, std::int64_t high) const {
    const bool is_small = value_->is_number_integer() &&
                          !(value_->is_number_unsigned() && value_->get<std::uint64_t>() > INT64_MAX);
    if (!is_small) {
      refuse("must be an integer from " + std::to_string(low) + " to " + std::to_string(high) + shown());
    }
    const auto number = value_->get<std::int64_t>();
    if (number < low || number > high) {
      refuse(std::to_string(number) + " is outside " + std::to_string(low) + ".." + std::to_string(high));
    }
    return number;
  }
  /// A finite number of at least 0 and at most 1e18.
  double quantity() const {
    const bool is_number = value_->is_number();
    const double number = is_number ? value_->get<double>() : -1;
    if (!(number >= 0 && number <= 1e18)) refuse("must be a number from 0 to 1e18" + shown());
    return number;
  }
  double quantity_or(const char* key, double otherwise) const {
    return has(key) ? at(key).quantity() : otherwise;
  }

 private:
  bool is_whole_file() const { return place_.ends_with(": "); }
  /// ", not VALUE" of what fits into a message.
  std::string shown() const {
    if (value_->is_structured()) return value_->is_array() ? ", not a list" : ", not an object";
    const std::string text = value_->dump();
    return ", not " + (text.size() <= 40 ? text : text.substr(0, 37) + "...");
  }

  const nlohmann::json* value_;
  std::string place_;
};

/// Parses `text`; `origin` is the file's name. Throws Error(kFormat) with byte and cause.
nlohmann::json parse_json_text(std::string_view text, const std::string& origin);

}  // namespace aurora

// Past traffic of one model as JSON (launch/formats.md): recorded by aurora-serve, made by aurora-plan
// import, planned from by both.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "scheduler/plan.h"

namespace aurora {

/// Version 1 of the format.
std::string traffic_text(const ModelTraffic& traffic);
/// `origin` names the source in messages. Throws Error(kFormat) naming the place and the value: wrong types,
/// unknown keys, ragged or negative counts, samples that are not top_k distinct experts, counts that disagree
/// with top_k.
ModelTraffic parse_traffic(std::string_view text, const std::string& origin);
ModelTraffic read_traffic_file(const std::filesystem::path& file);

}  // namespace aurora

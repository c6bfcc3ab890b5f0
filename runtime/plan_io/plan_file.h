// Deployment plans as JSON (launch/formats.md): written by aurora-serve and aurora-plan, read by both, and
// the form in which rank 0 sends its plan to the others.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "scheduler/plan.h"

namespace aurora {

/// Version 1 of the format. Shares keep their exact value.
std::string plan_text(const DeploymentPlan& plan);
/// `origin` names the source in messages. Throws Error(kFormat) naming the place and the value; the result
/// passes `validate`.
DeploymentPlan parse_plan(std::string_view text, const std::string& origin);
DeploymentPlan read_plan_file(const std::filesystem::path& file);

}  // namespace aurora

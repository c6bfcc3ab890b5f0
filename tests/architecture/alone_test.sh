#!/usr/bin/env bash
# headers_alone.py and scheduler_alone.sh can fail: each is shown a planted violation.
#   alone_test.sh SOURCE_ROOT COMPILER
set -euo pipefail
source_root=$1
compiler=$2
here=$source_root/tests/architecture

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

expect() {  # expect pass|fail TEXT COMMAND...: the command ends so and its output holds TEXT
  local wanted=$1 text=$2 ended=pass
  shift 2
  "$@" >"$folder/output" 2>&1 || ended=fail
  if [[ $ended != "$wanted" ]] || ! grep -qF -- "$text" "$folder/output"; then
    printf 'expected to %s with "%s", but %sed: %s\n' "$wanted" "$text" "$ended" "$*"
    cat "$folder/output"
    exit 1
  fi
}

tree=$folder/tree
mkdir -p "$tree/scheduler"
printf '// Good.\n#pragma once\n#include <vector>\nstd::vector<int> loads();\n' >"$tree/scheduler/good.h"
expect pass "1 of 1 headers compile alone" python3 "$here/headers_alone.py" --root "$tree" --compiler "$compiler"
printf '// Bad: std::vector is not included.\n#pragma once\nstd::vector<int> loads();\n' >"$tree/scheduler/bad.h"
expect fail "scheduler/bad.h does not compile alone" \
  python3 "$here/headers_alone.py" --root "$tree" --compiler "$compiler"

cat >"$tree/scheduler/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.25)
project(planner LANGUAGES CXX)
add_library(planner STATIC plan.cc)
target_include_directories(planner PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/..)
CMAKE
printf '#include "scheduler/good.h"\n' >"$tree/scheduler/plan.cc"
expect pass "plan.cc" "$here/scheduler_alone.sh" "$tree" "$compiler"
mkdir "$tree/kernels"
printf '#pragma once\n' >"$tree/kernels/error.h"
printf '#include "kernels/error.h"\n' >"$tree/scheduler/plan.cc"
expect fail "kernels/error.h" "$here/scheduler_alone.sh" "$tree" "$compiler"
echo "both checks pass what is right and fail what is wrong"

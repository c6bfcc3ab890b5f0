#!/usr/bin/env bash
# Tests on a GPU machine, from what tests/gpu/pack.sh has packed; needs a driver, the CUDA libraries and, for the
# programs of several ranks, mpirun.
#
#   tests/gpu/run.sh --logs FOLDER                the kernel tests
#   tests/gpu/run.sh --logs FOLDER STEP...        other steps, in this order; `all` for every one
#   --filter REGEX    only GoogleTest cases that match this pattern of --gtest_filter
#
# Steps: kernels    all kernel tests, the CUDA cases among them
#        programs   every other GoogleTest program of the package
#        memcheck   the CUDA kernel tests under compute-sanitizer --tool memcheck
#        racecheck  the same under --tool racecheck, for hazards in shared memory
# Each step writes one log into FOLDER; the last lines are one line a step and a verdict. Exit code: 0 when all passed.
set -euo pipefail

usage() {
  sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "${BASH_SOURCE[0]}"
}

fail() {
  printf 'tests/gpu/run.sh: %s\n' "$1" >&2
  exit 1
}

logs=
filter=
steps=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --logs) logs=${2:?--logs needs a folder}; shift 2 ;;
    --filter) filter=${2:?--filter needs a pattern}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    all) steps+=(kernels programs memcheck racecheck); shift ;;
    kernels | programs | memcheck | racecheck) steps+=("$1"); shift ;;
    *) fail "unknown argument '$1'; --help lists options and steps" ;;
  esac
done
[[ -n $logs ]] || fail "--logs FOLDER is missing"
if [[ ${#steps[@]} -eq 0 ]]; then steps=(kernels); fi

# shellcheck source=tests/gpu/unpack.sh
. "$(dirname "${BASH_SOURCE[0]}")/unpack.sh"

summary=()
status=0
# Runs one step into its log and keeps a line about it.
step() {  # step NAME COMMAND...
  local name=$1 log=$logs/$1.log start=$SECONDS code=0 counts
  shift
  printf '== %s\n' "$name"
  "$@" >>"$log" 2>&1 || code=$?
  # GoogleTest's closing lines, over all programs of the step.
  counts=$(awk '/^\[  PASSED  \] [0-9]+ test/ { passed += $4 } /^\[  SKIPPED \] [0-9]+ test/ { skipped += $4 }
                /^\[  FAILED  \] [0-9]+ test/ { failed += $4 }
                END { printf "%d passed, %d skipped, %d failed", passed, skipped, failed }' "$log")
  if [[ $code -ne 0 ]]; then
    status=1
    grep -E '^\[  FAILED  \]|Failure$|========= (Invalid|Error|ERROR|Race)|error while loading' "$log" | sort -u | head -20 || true
    if grep -q 'FAILED' "$log"; then grep -m1 -B1 -A8 'Failure$' "$log" || true; else tail -5 "$log"; fi
  fi
  summary+=("$(printf '%-10s %s: %s (exit code %s, %s s)' "$name" "$([[ $code -eq 0 ]] && echo passed || echo FAILED)" \
    "$counts" "$code" "$((SECONDS - start))")")
}

# Called through step().
# shellcheck disable=SC2317
sanitizer() {
  command -v compute-sanitizer || find /usr/local/cuda* /opt -name compute-sanitizer -type f -executable -print -quit 2>/dev/null
}

# shellcheck disable=SC2317
check_with() {  # check_with TOOL: the CUDA cases under compute-sanitizer
  local program
  program=$(sanitizer)
  if [[ -z $program ]]; then
    printf 'compute-sanitizer is not on this machine\n'
    return 1
  fi
  # Cases that expect an error of CUDA make one on purpose; 20,000 draws a case show nothing new and take hours.
  "$program" --tool "$1" --report-api-errors no --error-exitcode 99 "$package/bin/kernels_test" \
    --gtest_filter="${filter:-*/cuda*:Cuda*:-*FollowsTheDistribution*}"
}

# shellcheck disable=SC2317
run_programs() {
  local program code=0
  for program in "$package"/bin/*_test; do
    case $(basename "$program") in kernels_test | *_mpi_test | mpi_*) continue ;; esac
    printf '== %s\n' "$(basename "$program")"
    "$program" --gtest_brief=1 ${filter:+--gtest_filter="$filter"} || code=1
  done
  return "$code"
}

{
  date -u
  nvidia-smi --query-gpu=name,driver_version,memory.total,memory.free --format=csv,noheader 2>/dev/null || echo 'nvidia-smi: no GPU'
  printf 'libraries: %s\n' "$library_path"
} | tee "$logs/machine.log"
for name in "${steps[@]}"; do
  rm -f "$logs/$name.log"
  case $name in
    kernels) step kernels "$package/bin/kernels_test" ${filter:+--gtest_filter="$filter"} ;;
    programs) step programs run_programs ;;
    memcheck | racecheck) step "$name" check_with "$name" ;;
  esac
done
printf '\n'
printf '%s\n' "${summary[@]}"
exit "$status"

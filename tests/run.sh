#!/usr/bin/env bash
# Everything from a clean clone to tested: installs what is missing, configures, builds all and runs all tests.
#
#   tests/run.sh                      the release build, all tests
#   tests/run.sh --preset asan|tsan   the tests labelled `sanitize` under a sanitizer
#   tests/run.sh --filter REGEX       only tests whose name matches, as ctest -R
#   tests/run.sh --exclude REGEX      without those whose name matches, as ctest -E
#   tests/run.sh --keep-going         build as much as can be built before failing
#
# Ends with ctest's closing lines and one line about skipped tests. Runs as often as you like; a second run builds only
# what has changed. Exit code: 0 when everything built and passed.
set -euo pipefail

usage() {
  sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "${BASH_SOURCE[0]}"
}

fail() {
  printf 'tests/run.sh: %s\n' "$1" >&2
  exit 1
}

preset=release
select=()
build_options=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --preset) preset=${2:?--preset needs a name}; shift 2 ;;
    --filter) select+=(-R "${2:?--filter needs a regular expression}"); shift 2 ;;
    --exclude) select+=(-E "${2:?--exclude needs a regular expression}"); shift 2 ;;
    --keep-going) build_options+=(-- -k 0); shift ;;
    -h | --help) usage; exit 0 ;;
    *) fail "unknown option '$1'; known are --preset, --filter, --exclude, --keep-going and --help" ;;
  esac
done
targets=()
case $preset in
  release | debug) ;;
  asan | tsan) targets=(--target sanitize_tests); select+=(-L '^sanitize$') ;;
  *) fail "unknown preset '$preset'; known are release, debug, asan and tsan" ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
jobs=$(launch/build_jobs.sh)
build=build/$preset

step() {
  printf '\n== %s (%s s)\n' "$1" "$SECONDS"
}

step "install"
launch/install_dependencies.sh --test
step "configure: $preset"
benchmarks=ON
if [[ $preset == asan || $preset == tsan ]]; then
  benchmarks=OFF
fi
# Warnings are errors in CI, with the compilers that we know; elsewhere a newer one may know more of them, and a
# sanitizer's instrumentation invents some.
werror=OFF
if [[ ${CI:-} == true && $preset != asan && $preset != tsan ]]; then
  werror=ON
fi
cmake --preset "$preset" -DAURORA_WERROR="$werror" -DAURORA_TESTS=ON -DAURORA_BENCHMARKS="$benchmarks"
step "build, $jobs at once"
cmake --build "$build" "${targets[@]}" --parallel "$jobs" "${build_options[@]}"

# The thread sanitizer of GCC cannot live with as much address randomisation as newer kernels use.
launcher=()
if [[ $preset == tsan ]] && setarch "$(uname -m)" --addr-no-randomize true 2>/dev/null; then
  launcher=(setarch "$(uname -m)" --addr-no-randomize)
fi

step "test: $preset"
junit=$PWD/$build/tests.xml
rm -f "$junit"
status=0
"${launcher[@]}" ctest --test-dir "$build" --parallel "$jobs" --output-on-failure --no-tests=error \
  --output-junit "$junit" "${select[@]}" || status=$?
python3 -B tests/support/skipped_tests.py "$junit"
exit "$status"

#!/usr/bin/env bash
# The format and lint checks: clang-format, clang-tidy, shellcheck, and Python that at least compiles.
#
#   tests/lint/run.sh            checks all; needs a configured build/release (tests/run.sh leaves one)
#   tests/lint/run.sh --fix      formats instead of checking the format
#   tests/lint/run.sh --format   only the format
#
# clang-format and clang-tidy come from PyPI at pinned versions, so that they say the same on every distribution. They
# are kept in AURORA_TOOLS_DIR (default build/tools).
#   clang-format 14.0.6: what Debian 12 ships, so that editors there agree.
#   clang-tidy 18.1.8: the wheel of 14.0.6 lacks clang's own headers, and clang before 16 has no std::source_location.
set -euo pipefail

clang_format_version=14.0.6
clang_tidy_version=18.1.8

usage() {
  sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "${BASH_SOURCE[0]}"
}

fix=false
format_only=false
for argument in "$@"; do
  case $argument in
    --fix) fix=true ;;
    --format) format_only=true ;;
    -h | --help) usage; exit 0 ;;
    *) printf 'tests/lint/run.sh: unknown option %s\n' "$argument" >&2; exit 1 ;;
  esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tools=${AURORA_TOOLS_DIR:-$PWD/build/tools}
venv=$tools/clang-format-$clang_format_version-clang-tidy-$clang_tidy_version

if [[ ! -e $venv/complete ]]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
    "clang-format==$clang_format_version" "clang-tidy==$clang_tidy_version"
  touch "$venv/complete"
fi

status=0
report() {  # report NAME EXIT_STATUS
  if [[ $2 -eq 0 ]]; then
    printf '%s: passed\n' "$1"
  else
    printf '%s: FAILED\n' "$1"
    status=1
  fi
}

mapfile -t sources < <(git ls-files '*.cc' '*.h' '*.cu' '*.cuh')
if $fix; then
  "$venv/bin/clang-format" -i "${sources[@]}"
fi
code=0
"$venv/bin/clang-format" --dry-run -Werror "${sources[@]}" || code=$?
report "clang-format, ${#sources[@]} files" "$code"
if $format_only; then
  exit "$status"
fi

mapfile -t scripts < <(git ls-files '*.sh' .ci/run)
code=0
shellcheck "${scripts[@]}" || code=$?
report "shellcheck, ${#scripts[@]} scripts" "$code"

mapfile -t python_files < <(git ls-files '*.py')
code=0
python3 -B -c 'import ast, sys
for path in sys.argv[1:]:
    ast.parse(open(path, encoding="utf-8").read(), path)' "${python_files[@]}" || code=$?
report "Python syntax, ${#python_files[@]} files" "$code"

code=0
python3 -B tests/lint/clang_tidy.py --clang-tidy "$venv/bin/clang-tidy" --build build/release \
  --jobs "$(launch/build_jobs.sh)" || code=$?
report "clang-tidy" "$code"
exit "$status"

#!/usr/bin/env bash
# Installs what Aurora is built from, on Debian 12 and Ubuntu 24.04, with apt alone and only what is missing:
# a second run changes nothing and needs neither the network nor root.
#
#   launch/install_dependencies.sh            what building and running aurora-serve takes
#   launch/install_dependencies.sh --test     and what the tests and the lint take
#   launch/install_dependencies.sh --fuzz     and a clang that has libFuzzer and std::source_location
#   launch/install_dependencies.sh --runtime  only what a finished build needs to run (used by docker/Dockerfile)
#   launch/install_dependencies.sh --check    installs nothing; ends with 1 and a list when something is missing
set -euo pipefail

# The reason for each dependency stands in CONTRIBUTING.md.
build_packages=(
  g++ cmake ninja-build pkg-config ccache
  libopenmpi-dev openmpi-bin
  libopenblas-pthread-dev
  libspdlog-dev libcli11-dev libtomlplusplus-dev nlohmann-json3-dev
  libpcre2-dev libutf8proc-dev
)
test_packages=(libgtest-dev git ca-certificates python3 python3-venv python3-scipy shellcheck iproute2)
fuzz_packages=(clang-16 libclang-rt-16-dev)

# Names that carry a version differ between the two distributions: the first one that apt knows is taken.
runtime_packages=(
  openmpi-bin libopenblas0-pthread libpcre2-8-0
  "libutf8proc2|libutf8proc3" "libspdlog1.10|libspdlog1.12" "libtomlplusplus3|libtomlplusplus3t64"
)

fail() {
  printf 'install_dependencies: %s\n' "$1" >&2
  exit 1
}

usage() {
  sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "${BASH_SOURCE[0]}"
}

is_installed() {
  [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# Sets `missing` to what dpkg does not list as installed; for "a|b" either will do.
list_missing() {
  missing=()
  local entry name
  for entry in "$@"; do
    for name in ${entry//|/ }; do
      is_installed "$name" && continue 2
    done
    missing+=("$entry")
  done
}

# Sets `chosen`: of each "a|b" the first name that apt knows.
choose_names() {
  chosen=()
  local entry name
  for entry in "$@"; do
    for name in ${entry//|/ }; do
      if [[ $entry != *"|"* ]] || apt-cache show "$name" >/dev/null 2>&1; then
        chosen+=("$name")
        continue 2
      fi
    done
    fail "apt knows none of ${entry//|/, }; supported systems are Debian 12 and Ubuntu 24.04"
  done
}

as_root() {
  if [[ $(id -u) -eq 0 ]]; then
    "$@"
  else
    sudo "$@"
  fi
}

packages=("${build_packages[@]}")
check_only=false
for argument in "$@"; do
  case $argument in
    --test) packages+=("${test_packages[@]}") ;;
    --fuzz) packages+=("${fuzz_packages[@]}") ;;
    --runtime) packages=("${runtime_packages[@]}") ;;
    --check) check_only=true ;;
    -h | --help) usage; exit 0 ;;
    *) fail "unknown option '$argument'; known are --test, --fuzz, --runtime, --check and --help" ;;
  esac
done

command -v dpkg-query >/dev/null ||
  fail "dpkg is not here: this script serves Debian 12 and Ubuntu 24.04. Elsewhere install these by hand: ${packages[*]}"

list_missing "${packages[@]}"
if [[ ${#missing[@]} -eq 0 ]]; then
  exit 0
fi
if $check_only; then
  fail "missing: ${missing[*]}"
fi
if [[ $(id -u) -ne 0 ]] && ! command -v sudo >/dev/null; then
  fail "these packages are missing and installing them takes root, or sudo, and you have neither. Ask somebody who has to run: apt-get install ${missing[*]}"
fi

printf 'Installing: %s\n' "${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
as_root apt-get update -q
choose_names "${missing[@]}"
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${chosen[@]}"
list_missing "${packages[@]}"
if [[ ${#missing[@]} -ne 0 ]]; then
  fail "apt finished but these are still missing: ${missing[*]}"
fi

#!/usr/bin/env bash
# scheduler/ builds as a project of its own, from a copy that lies beside nothing else of ours.
#   scheduler_alone.sh SOURCE_ROOT COMPILER
set -euo pipefail
source_root=$1
compiler=$2

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# The copy lies elsewhere each time: paths relative to it let ccache know the sources again.
export CCACHE_BASEDIR=$folder CCACHE_NOHASHDIR=1
cp -R "$source_root/scheduler" "$folder/scheduler"
cmake -S "$folder/scheduler" -B "$folder/build" -G Ninja -DCMAKE_CXX_COMPILER="$compiler" \
  -DCMAKE_CXX_COMPILER_LAUNCHER="$(command -v ccache || true)" -DCMAKE_BUILD_TYPE=Release
cmake --build "$folder/build"

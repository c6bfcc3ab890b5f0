#!/usr/bin/env bash
# Prints how many compilers may run at once here: one for each core, and 1.5 GiB of free memory for each (the largest
# translation unit takes about 1 GiB with -O3, more with a sanitizer). CMAKE_BUILD_PARALLEL_LEVEL beats both.
set -euo pipefail
if [[ -n ${CMAKE_BUILD_PARALLEL_LEVEL:-} ]]; then
  echo "$CMAKE_BUILD_PARALLEL_LEVEL"
  exit 0
fi
cores=$(nproc)
free_kib=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo)
by_memory=$((${free_kib:-1572864} / 1572864))
jobs=$((cores < by_memory ? cores : by_memory))
echo $((jobs > 0 ? jobs : 1))

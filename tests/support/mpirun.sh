#!/usr/bin/env bash
# mpirun as the tests need it: more ranks than cores, as root or not, yielding when idle.
set -euo pipefail
if [[ $(id -u) -eq 0 ]]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# Under the address sanitizer: MPI libraries leave memory of theirs to the end of the process.
export ASAN_OPTIONS="detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
# All ranks of a test are on this machine, so no network is searched for.
exec mpirun --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 --mca btl self,vader "$@"

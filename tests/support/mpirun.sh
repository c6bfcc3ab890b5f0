#!/usr/bin/env bash
# mpirun as the tests need it: more ranks than cores, as root or not, yielding when idle.
set -euo pipefail
if [[ $(id -u) -eq 0 ]]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
exec mpirun --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 "$@"

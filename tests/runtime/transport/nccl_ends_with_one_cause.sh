#!/usr/bin/env bash
# Whatever happens to a rank in the middle of an exchange over NCCL, every other rank ends, one of them names the
# cause, mpirun tells of it, and no process of the job stays (and so no GPU memory of it).
# Usage: nccl_ends_with_one_cause.sh PROBE MODE RANKS
set -euo pipefail

probe=$1
mode=$2
ranks=$3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
marker="probe-$$-$RANDOM$RANDOM"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
  echo "mode $mode, $ranks ranks: $*" >&2
  cat "$scratch/log" >&2
  exit 1
}

marked_processes() {
  local file
  for file in /proc/[0-9]*/cmdline; do
    if tr '\0' '\n' 2>/dev/null <"$file" | grep -qx -- "$marker"; then basename "$(dirname "$file")"; fi
  done
}

# With recovery enabled mpirun leaves the other ranks alone when one dies: they must find out themselves. It then
# returns 0 whatever happens.
recovery=()
if [[ $mode == kill ]]; then recovery=(--enable-recovery); fi
status=0
"$here/../../support/mpirun.sh" "${recovery[@]}" --timeout 120 -np "$ranks" "$probe" "$mode" "$marker" \
  >"$scratch/log" 2>&1 </dev/null || status=$?
if grep -q '^SKIP: ' "$scratch/log"; then
  grep -m1 '^SKIP: ' "$scratch/log"
  exit 77
fi

echo "mode $mode, $ranks ranks: mpirun returned $status"
if grep -q "time limit" "$scratch/log"; then fail "the job did not end by itself"; fi
survivors=$ranks
if [[ $mode == kill || $mode == stop ]]; then survivors=$((ranks - 1)); fi
# A rank that was stopped is woken to be ended, and may still get to print.
ended=$(grep -c '^probe rank [0-9]*: ends' "$scratch/log" || true)
((ended >= survivors)) || fail "$ended of $survivors ranks ended by themselves"
causes=$(grep -c '^probe rank [0-9]*: cause: ' "$scratch/log" || true)
if [[ $mode == clean ]]; then
  [[ $status == 0 && $causes == 0 ]] || fail "a clean run has failed"
else
  [[ $status != 0 || $mode == kill ]] || fail "mpirun returned 0"
  [[ $causes == 1 ]] || fail "$causes ranks name a cause"
  grep '^probe rank [0-9]*: cause: ' "$scratch/log"
fi

# A process that was killed may take a moment to leave the table.
deadline=$((SECONDS + 20))
while left=$(marked_processes) && [[ -n $left ]]; do
  if ((SECONDS > deadline)); then fail "processes stayed: $left"; fi
done

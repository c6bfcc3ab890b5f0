#!/usr/bin/env bash
# Whatever goes wrong on one rank, or from outside, mpirun ends with a non-zero status and none of its processes stays.
# Usage: abort_leaves_no_process.sh PROBE MODE RANKS [SIGNAL]
# With SIGNAL (INT or TERM), mpirun gets it once the ranks are under way.
set -euo pipefail

probe=$1
mode=$2
ranks=$3
signal=${4:-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
marker="probe-$$-$RANDOM$RANDOM"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The process ids whose command line holds the marker; this script's own does not.
marked_processes() {
  local file
  for file in /proc/[0-9]*/cmdline; do
    if tr '\0' '\n' 2>/dev/null <"$file" | grep -qx -- "$marker"; then basename "$(dirname "$file")"; fi
  done
}

mkfifo "$scratch/out"
set -m # a process group of its own, as an interactive shell gives a job; without it SIGINT is ignored
"$here/../../support/mpirun.sh" --timeout 60 -np "$ranks" "$probe" "$mode" "$marker" \
  >"$scratch/out" 2>"$scratch/err" &
job=$!
set +m

exec 3<"$scratch/out"
if [[ -n $signal ]]; then
  line=""
  while [[ $line != ready ]] && read -r -t 60 line <&3; do :; done
  if [[ $line != ready ]]; then
    echo "the ranks never got ready" >&2
    cat "$scratch/err" >&2
  fi
  kill "-$signal" "$job" # mpirun alone: that is whom a terminal's Ctrl-C reaches, the ranks have groups of their own
fi
cat <&3 >/dev/null
status=0
wait "$job" || status=$?

echo "mode $mode, $ranks ranks${signal:+, SIG$signal}: mpirun returned $status"
if grep -q "time limit" "$scratch/err"; then
  echo "the job did not end by itself" >&2
  cat "$scratch/err" >&2
  exit 1
fi
if [[ $mode == clean && $status -ne 0 ]] || [[ $mode != clean && $status -eq 0 ]]; then
  echo "the exit status is wrong" >&2
  cat "$scratch/err" >&2
  exit 1
fi
if [[ $mode == abort ]]; then
  for ((rank = 0; rank < ranks - 1; ++rank)); do
    if ! grep -q "probe rank $rank: rank $((ranks - 1)) failed: a drill" "$scratch/err"; then
      echo "rank $rank did not learn who failed and why:" >&2
      cat "$scratch/err" >&2
      exit 1
    fi
  done
fi
# A process that was killed may take a moment to leave the table.
deadline=$((SECONDS + 20))
while left=$(marked_processes) && [[ -n $left ]]; do
  if ((SECONDS > deadline)); then
    echo "processes stayed: $left" >&2
    exit 1
  fi
done

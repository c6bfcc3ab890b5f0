#!/usr/bin/env bash
# The testbed leaves nothing behind, passes exit codes on, and what runs across its hosts answers as on one machine.
#   testbed_test.sh CASE AURORA_SERVE
# Exit code 77 means skipped, with the reason on a line that begins with "SKIP: ".
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
serve=$2

skip() {
  printf 'SKIP: %s\n' "$1"
  exit 77
}

fail() {
  printf 'FAILED: %s\n' "$1"
  exit 1
}

[[ $(id -u) -eq 0 ]] || skip "network namespaces take root"
for tool in ip tc unshare mpirun; do
  command -v "$tool" >/dev/null || skip "$tool is missing"
done
probe=aurora-probe$$
ip netns add "$probe" 2>/dev/null || skip "this kernel or container allows no network namespaces"
ip netns del "$probe"

# Namespaces of the testbed with process id $1.
namespaces_of() {
  ip netns list | grep -c "^aurora$1\(sw\|h[0-9]*\)\b" || true
}

# Starts a testbed in the background and waits until its hosts exist; sets `pid`.
start() {
  python3 -B "$here/testbed.py" --hosts 3 --gbps 1 -- "$@" &
  pid=$!
  for _ in $(seq 500); do
    [[ $(namespaces_of "$pid") -eq 4 ]] && return
    kill -0 "$pid" 2>/dev/null || break
    read -r -t 0.02 <> <(:) || true
  done
  fail "the testbed did not come up"
}

end_of() {
  local code=0
  wait "$1" || code=$?
  [[ $(namespaces_of "$1") -eq 0 ]] || fail "namespaces are left behind"
  printf '%s' "$code" >"$folder/code"
}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

case $1 in
  ends_clean_and_passes_the_exit_code_on)
    start sh -c 'exit 7'
    end_of "$pid"
    [[ $(<"$folder/code") -eq 7 ]] || fail "the command's exit code 7 became $(<"$folder/code")"
    ;;
  an_interruption_takes_everything_down)
    start sleep 60
    kill -TERM "$pid"
    end_of "$pid"
    [[ $(<"$folder/code") -ne 0 ]] || fail "an interrupted run looks like success"
    ;;
  a_wrong_number_of_rates_is_refused)
    if python3 -B "$here/testbed.py" --hosts 3 --gbps 1,2 -- true 2>"$folder/log"; then fail "accepted"; fi
    grep -q "names 2 rates for 3 hosts" "$folder/log" || fail "$(cat "$folder/log")"
    ;;
  node_mates_talk_over_the_link_inside)
    # Host 0 sends to its mate, host 1, and to host 2 of the other node.
    # shellcheck disable=SC2016
    python3 -B "$here/testbed.py" --hosts 4 --hosts-per-node 2 --gbps 0.5 --inside-gbps 2 --timeout 60 -- sh -c '
      [ "$OMPI_COMM_WORLD_RANK" = 0 ] || exit 0
      subnet=$(ip -4 -o addr show dev eth0 | sed "s/.*inet \([0-9.]*\)\.[0-9]*\/.*/\1/")
      for host in 1 2; do
        before=$(cat /sys/class/net/eth0/statistics/tx_bytes /sys/class/net/eth1/statistics/tx_bytes | tr "\n" " ")
        python3 -c "
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(100):
    sender.sendto(bytes(1000), (sys.argv[1], 9))
" "$subnet.$((host + 1))"
        sleep 0.5
        echo "$host $before$(cat /sys/class/net/eth0/statistics/tx_bytes /sys/class/net/eth1/statistics/tx_bytes | tr "\n" " ")"
      done' >"$folder/bytes"
    awk '{ outside = $4 - $2 > 100000; inside = $5 - $3 > 100000 }
         $1 == 1 && (!inside || outside) || $1 == 2 && (inside || !outside) { wrong = 1 }
         END { exit wrong || NR != 2 }' "$folder/bytes" || fail "bytes sent over eth0 and eth1: $(cat "$folder/bytes")"
    ;;
  aurora_serve_answers_as_on_one_machine)
    cd "$here/../.."
    models=launch/configs/tiny-mixtral.cfg,launch/configs/tiny-qwen3-moe.cfg
    "$serve" --models "$models" --prompts launch/configs/example_prompts.jsonl --output "$folder/one.jsonl" --quiet
    # shellcheck disable=SC2016
    python3 -B "$here/testbed.py" --hosts 4 --gbps 2,2,1,1 -- sh -c "exec '$serve' --models $models --transport mpi \
      --cluster \"\$TESTBED_CLUSTER\" --prompts launch/configs/example_prompts.jsonl \
      --output '$folder/four.jsonl' --quiet"
    python3 - "$folder/one.jsonl" "$folder/four.jsonl" <<'PYTHON' || fail "other answers than on one machine"
import json, sys
one, four = ([(a["custom_id"], a["token_ids"]) for a in map(json.loads, open(file))] for file in sys.argv[1:])
sys.exit(not one or one != four)
PYTHON
    ;;
  *) fail "unknown case $1" ;;
esac

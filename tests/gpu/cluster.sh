#!/usr/bin/env bash
# Exchanges and colocation on a GPU machine in one command, from what tests/gpu/pack.sh has packed (aurora-bench is
# enough): between the machine's GPUs, a rank each, and between the hosts of tests/testbed that share one GPU under MPS.
#
#   tests/gpu/cluster.sh --logs FOLDER [PART...]
#   --gpus N           that `links` and `schedules` use; default all
#   --gbps LIST        ports of the eight hosts (4)
#   --testbed ARGS     further arguments of tests/testbed/run.sh, as one word
#   --shape NAME       of benchmarks/random_checkpoint.py, two models of which are colocated (mixtral-8x7b, two layers)
#   --transport NAME   nccl; mpi to try the script where there is no GPU, with the example models
#
# Parts, each with a limit of its own after which the rows that it has stay; all of them unless some are named:
#   links       aurora-bench alltoall between GPUs, every policy and family, then torch and bare NCCL       150 s
#   schedules   aurora-bench colocation between GPUs                                                        120 s
#   hosts       alltoall between the hosts over the transport and over MPI, 16 MB for the busiest port      120 s
#   colocation  aurora-bench colocation between the hosts, exchanges from less to more than compute         240 s
#   exact       the example models' tokens under every schedule, with --deterministic                        40 s
# Rows are FOLDER/PART.jsonl. Between hosts ports are shaped, which takes root and iproute2. Exit code: 0 when every
# part ended well.
# Parts are started by `timeout bash -c`, which shellcheck does not see.
# shellcheck disable=SC2317
set -euo pipefail

usage() {
  sed -n '2,/^# Parts are started/{s/^# \{0,1\}//;/^Parts are started/d;p}' "${BASH_SOURCE[0]}"
}

fail() {
  printf 'tests/gpu/cluster.sh: %s\n' "$1" >&2
  exit 1
}

logs=
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)
gbps=4
testbed=
shape=mixtral-8x7b
transport=nccl
parts=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --logs) logs=${2:?--logs needs a folder}; shift 2 ;;
    --gpus) gpus=${2:?--gpus needs a number}; shift 2 ;;
    --gbps) gbps=${2:?--gbps needs a list}; shift 2 ;;
    --testbed) testbed=${2:?--testbed needs arguments}; shift 2 ;;
    --shape) shape=${2:?--shape needs a name}; shift 2 ;;
    --transport) transport=${2:?--transport needs a name}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    links | schedules | hosts | colocation | exact) parts+=("$1"); shift ;;
    *) fail "unknown argument '$1'; --help lists options and parts" ;;
  esac
done
[[ -n $logs ]] || fail "--logs FOLDER is missing"
if [[ ${#parts[@]} -eq 0 ]]; then parts=(links schedules hosts colocation exact); fi

# shellcheck source=tests/gpu/unpack.sh
. "$(dirname "${BASH_SOURCE[0]}")/unpack.sh"
require_packed aurora-bench
bench=$package/bin/aurora-bench
work=$(mktemp -d)

stop_mps() {
  if [[ -n ${CUDA_MPS_PIPE_DIRECTORY:-} ]]; then
    echo quit | nvidia-cuda-mps-control >/dev/null 2>&1 || true
    unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
  fi
}
trap 'stop_mps; rm -rf "$work" "$package"' EXIT
start_mps() {
  if [[ $transport != nccl ]]; then return 0; fi
  export CUDA_VISIBLE_DEVICES=0 CUDA_MPS_PIPE_DIRECTORY=$work/mps CUDA_MPS_LOG_DIRECTORY=$work/mps-log
  mkdir -p "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
  nvidia-cuda-mps-control -d
}

# Two models of one shape with weights of their own, drawn once.
models() {
  local seed
  if [[ $transport != nccl ]]; then
    printf 'launch/configs/tiny-mixtral.cfg,launch/configs/tiny-qwen3-moe.cfg'
    return
  fi
  for seed in 1 2; do
    if [[ -e $work/$seed.cfg ]]; then continue; fi
    LD_LIBRARY_PATH=$machine_library_path python3 -B benchmarks/random_checkpoint.py "$shape" "$work/$seed" --layers 2 \
      --seed "$seed" >&2
    printf 'version = 1\npath = "%s"\nname = "model-%s"\n' "$work/$seed" "$seed" >"$work/$seed.cfg"
  done
  printf '%s' "$work/1.cfg,$work/2.cfg"
}

on_gpus() {  # on_gpus COMMAND...: a rank for each
  tests/support/mpirun.sh -np "$gpus" "$@"
}
on_hosts() {  # on_hosts LIMIT PORTS COMMAND...: a rank on each; the cluster file is appended
  local limit=$1 ports=$2
  shift 2
  # shellcheck disable=SC2086,SC2016
  tests/testbed/run.sh --hosts 8 --gbps "$ports" --timeout "$limit" $testbed -- \
    sh -c 'exec "$@" --cluster "$TESTBED_CLUSTER"' sh "$@"
}

run_links() {
  local matrices=$work/matrices ports=$work/ports.toml
  on_gpus "$bench" calibrate --shape 8x2x64x32 --rows 1,2 --backend "$([[ $transport == nccl ]] && echo cuda || echo cpu)" \
    --cluster-out "$ports" >&2
  on_gpus "$bench" alltoall --transport "$transport" --cluster "$ports" --family all --bytes-per-rank 4k,64k,1m \
    --repeats 20 --matrices-out "$matrices" --json >"$logs/links.jsonl"
  on_gpus "$bench" alltoall --transport "$transport" --cluster "$ports" --repeats 6 --bytes-per-rank 16m,128m \
    --family uniform,hot-sender,balanced-uneven,routing-13 --matrices-out "$matrices" --json >>"$logs/links.jsonl"
  if [[ $transport != nccl ]]; then return 0; fi
  LD_LIBRARY_PATH=$machine_library_path on_gpus python3 -B benchmarks/alltoall_peers.py --matrices "$matrices" \
    --repeats 10 --json >>"$logs/links.jsonl"
}
run_schedules() {
  on_gpus "$bench" colocation --transport "$transport" --models "$(models)" --requests 64 --prompt-tokens 128 \
    --max-tokens 32 --repeats 3 --json >"$logs/schedules.jsonl"
}
run_hosts() {
  on_hosts 55 "$gbps" "$bench" alltoall --transport "$transport" --family all --bytes-per-rank 16m --repeats 5 \
    --burst-bytes 32k --json >"$logs/hosts.jsonl"
  on_hosts 55 "$gbps" "$bench" alltoall --family all --bytes-per-rank 16m --repeats 5 --burst-bytes 32k \
    --json >>"$logs/hosts.jsonl"
}
run_colocation() {
  local requests
  : >"$logs/colocation.jsonl"
  for requests in 32 96 384; do
    on_hosts 75 "$gbps" "$bench" colocation --transport "$transport" --models "$(models)" --requests "$requests" \
      --prompt-tokens 8 --max-tokens 32 --repeats 3 --order group --json >>"$logs/colocation.jsonl"
  done
}
run_exact() {
  on_hosts 38 "$gbps" "$bench" colocation --transport "$transport" --requests 32 --max-tokens 16 --repeats 1 \
    --deterministic --json >"$logs/exact.jsonl"
}
export transport gbps testbed gpus shape bench work logs machine_library_path
export -f models on_gpus on_hosts run_links run_schedules run_hosts run_colocation run_exact

declare -A limits=([links]=150 [schedules]=120 [hosts]=120 [colocation]=240 [exact]=40)
status=0
{
  date -u
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo 'nvidia-smi: no GPU'
} | tee "$logs/machine.log"
for part in "${parts[@]}"; do
  start=$SECONDS code=0
  case $part in hosts | colocation | exact) if [[ -z ${CUDA_MPS_PIPE_DIRECTORY:-} ]]; then start_mps; fi ;; esac
  timeout "${limits[$part]}" bash -euo pipefail -c "run_$part" 2>"$logs/$part.log" || code=$?
  verdict=passed
  if [[ $code -ne 0 ]]; then
    verdict=FAILED status=1
    tail -n 3 "$logs/$part.log"
  fi
  printf '%-10s %s: %s rows (exit code %s, %s s)\n' "$part" "$verdict" \
    "$(grep -c '^{' "$logs/$part.jsonl" 2>/dev/null || true)" "$code" "$((SECONDS - start))"
done
exit "$status"

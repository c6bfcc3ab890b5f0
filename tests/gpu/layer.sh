#!/usr/bin/env bash
# The whole table of the MoE layer on a GPU machine in one command, from what tests/gpu/pack.sh has packed (aurora-bench
# is enough); about two minutes. Peers need a Python with torch, and transformers, vLLM or SGLang for theirs.
#
#   tests/gpu/layer.sh --logs FOLDER [PART...]
#   --shape LIST      of benchmarks/layer/shape.h instead of all
#   --tokens LIST     instead of 1 to 16384
#   --seconds S       that samples of a row are taken for (0.1)
#   --backend NAME    cuda; cpu to try the script where there is no GPU, with small shapes
#
# Parts, each with a limit of its own after which the rows that it has stay; all of them unless some are named:
#   layer      aurora-bench layer, uniform routing                                 100 s
#   peers      layer_peers.py, the same                                            120 s
#   routed     both on recorded routing, for the shapes that it fits                60 s
#   stages     each stage of the layer alone, beside a copy                         60 s
#   calibrate  the costs of each shape, for the planner                             60 s
# Then benchmarks/layer_table.py joins the rows: FOLDER/table.md. Exit code: 0 when every part ended well and the table
# misses nothing.
# Parts are started by `timeout bash -c`, which shellcheck does not see.
# shellcheck disable=SC2317
set -euo pipefail

usage() {
  sed -n '2,/^# Parts are started/{s/^# \{0,1\}//;/^Parts are started/d;p}' "${BASH_SOURCE[0]}"
}

fail() {
  printf 'tests/gpu/layer.sh: %s\n' "$1" >&2
  exit 1
}

logs=
shapes=all
tokens=1,2,4,8,16,64,256,512,1024,2048,4096,8192,16384
seconds=0.1
backend=cuda
parts=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --logs) logs=${2:?--logs needs a folder}; shift 2 ;;
    --shape) shapes=${2:?--shape needs a list}; shift 2 ;;
    --tokens) tokens=${2:?--tokens needs a list}; shift 2 ;;
    --seconds) seconds=${2:?--seconds needs a number}; shift 2 ;;
    --backend) backend=${2:?--backend needs a name}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    layer | peers | routed | stages | calibrate) parts+=("$1"); shift ;;
    *) fail "unknown argument '$1'; --help lists options and parts" ;;
  esac
done
[[ -n $logs ]] || fail "--logs FOLDER is missing"
if [[ ${#parts[@]} -eq 0 ]]; then parts=(layer peers routed stages calibrate); fi

# shellcheck source=tests/gpu/unpack.sh
. "$(dirname "${BASH_SOURCE[0]}")/unpack.sh"
require_packed aurora-bench

record=benchmarks/routing/law.json
routed_shape=deepseek-v2-lite  # has the record's experts and top-k
case ,$shapes, in *,all,* | *,$routed_shape,*) ;; *) routed_shape= ;; esac
all_shapes=${shapes/all/mixtral-8x7b,qwen3-30b-a3b,olmoe-1b-7b,deepseek-v2-lite}
dtype=bfloat16
if [[ $backend == cpu ]]; then dtype=float32; fi

bench() {
  "$package/bin/aurora-bench" "$@" --backend "$backend" --seconds "$seconds" --json
}

peers() {
  LD_LIBRARY_PATH=$machine_library_path python3 -B benchmarks/layer_peers.py --device "$backend" --dtype "$dtype" \
    --seconds "$seconds" "$@"
}

run_layer() { bench layer --shape "$shapes" --tokens "$tokens" >"$logs/layer.jsonl"; }
run_peers() { peers --shape "$shapes" --tokens "$tokens" >"$logs/peers.jsonl"; }
run_routed() {
  local code=0
  if [[ -z $routed_shape ]]; then return 0; fi
  bench layer --shape "$routed_shape" --tokens "$tokens" --routing "$record" >"$logs/routed.jsonl" || code=1
  peers --shape "$routed_shape" --tokens "$tokens" --routing "$record" >"$logs/routed-peers.jsonl" || code=1
  return "$code"
}
run_stages() { bench layer --shape "$shapes" --tokens "${stage_tokens:?}" --stages >"$logs/stages.jsonl"; }
run_calibrate() {
  local shape code=0
  : >"$logs/calibrate.jsonl"
  for shape in ${all_shapes//,/ }; do bench calibrate --shape "$shape" --check-tokens 1 >>"$logs/calibrate.jsonl" || code=1; done
  return "$code"
}

# One small batch and the two largest.
stage_tokens=$(tr , '\n' <<<"$tokens" | awk '$1 == 256' | paste -sd,)
stage_tokens+=${stage_tokens:+,}$(tr , '\n' <<<"$tokens" | awk '$1 != 256' | tail -2 | paste -sd,)
stage_tokens=${stage_tokens%,}
export package backend seconds logs shapes tokens record routed_shape all_shapes dtype machine_library_path stage_tokens
export -f bench peers run_layer run_peers run_routed run_stages run_calibrate

declare -A limits=([layer]=100 [peers]=120 [routed]=60 [stages]=60 [calibrate]=60)
status=0
{
  date -u
  nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,memory.total --format=csv,noheader 2>/dev/null || echo 'nvidia-smi: no GPU'
} | tee "$logs/machine.log"
rm -f "$logs"/{layer,peers,routed,routed-peers,stages,calibrate}.jsonl  # the table is of one run
for part in "${parts[@]}"; do
  start=$SECONDS code=0
  timeout "${limits[$part]}" bash -c "run_$part" 2>"$logs/$part.log" || code=$?
  verdict=passed
  if [[ $code -ne 0 ]]; then status=1 verdict=FAILED; fi
  if [[ $code -eq 124 ]]; then verdict="cut off after ${limits[$part]} s"; fi
  printf '%-10s %s (exit code %s, %s s)\n' "$part" "$verdict" "$code" "$((SECONDS - start))"
  if [[ $code -ne 0 ]]; then tail -3 "$logs/$part.log"; fi
done

rows=()
for file in layer peers routed routed-peers; do
  if [[ -s $logs/$file.jsonl ]]; then rows+=("$logs/$file.jsonl"); fi
done
if [[ ${#rows[@]} -gt 0 ]]; then
  code=0
  python3 -B benchmarks/layer_table.py --limits "${rows[@]}" >"$logs/table.md" 2>"$logs/table.log" || code=$?
  cat "$logs/table.md"
  if [[ $code -ne 0 ]]; then status=1; tail -20 "$logs/table.log"; fi
fi
exit "$status"

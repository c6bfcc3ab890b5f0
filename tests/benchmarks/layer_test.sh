#!/usr/bin/env bash
# aurora-bench layer and calibrate as people start them: layer_test.sh CASE PATH-OF-AURORA-BENCH PATH-OF-AURORA-PLAN
set -euo pipefail
mpirun="$(dirname -- "$0")/../support/mpirun.sh"
benchmarks="$(dirname -- "$0")/../../benchmarks"
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT
small=(--rotate-bytes 1m --seconds 0.01)

fail() {
  echo "$1" >&2
  exit 1
}

a_small_layer_has_all_its_columns() {
  "$bench" layer --shape 64x6x32x24,8x2x64x32 --tokens 1,40 --routing "$benchmarks/routing/law.json" --stages \
    --peak-tflops 0.1 --peak-tbps 0.02 "${small[@]}" --json > "$folder/rows.jsonl" || fail "an element was wrong"
  "$bench" layer --shape 8x2x64x32 --tokens 40 --no-graphs "${small[@]}" --json > "$folder/direct.jsonl" ||
    fail "an element was wrong without graphs"
  python3 -B - "$folder/rows.jsonl" "$folder/direct.jsonl" "$benchmarks" << 'PYTHON'
import json, sys
sys.path.insert(0, sys.argv[3])
from layer_routing import replayed_routing, uniform_routing
rows = [json.loads(line) for line in open(sys.argv[1])]
layers = {row["row"]: row for row in rows if row["row"].endswith(" aurora")}
assert len(layers) == 4, layers.keys()
stages = {row["row"].split()[-1] for row in rows} - {"aurora"}
assert stages == {"route", "grouping", "experts", "aggregation", "assignment", "packing", "row-grouping", "results", "result-sum"}, stages
for row in rows:
    assert row["wrong"] == 0 and 0 < row["p10"] <= row["median"] <= row["p90"] and row["graph"] == "yes", row
record = sys.argv[3] + "/routing/law.json"
for name, (experts, top_k, hidden, inner, routing) in {
        "64x6x32x24 40 law aurora": (64, 6, 32, 24, replayed_routing(record, 64, 6, 40)),
        "8x2x64x32 40 uniform aurora": (8, 2, 64, 32, uniform_routing(8, 2, 40, 1))}.items():
    row = layers[name]
    hit = {expert for token in routing for expert in token}
    assert row["hit"] == len(hit), (row, hit)
    raw = max(6 * 40 * top_k * hidden * inner / 0.1e6, len(hit) * 12 * hidden * inner / 0.02e6)
    assert abs(row["raw_floor"] / raw - 1) < 1e-3, (row, raw)
    assert row["floor"] > row["raw_floor"], row
    assert row["checked"] == 4 * hidden and row["changed"] == 0 and row["dtype"] == "float32", row
direct = json.loads(open(sys.argv[2]).read())
assert direct["graph"] == "no" and direct["changed"] == 0, direct
PYTHON
}

the_table_joins_rows_and_misses_none() {
  cat > "$folder/ours.jsonl" << 'JSON'
{"row": "s 1 uniform aurora", "median": 20, "raw_floor": 16, "floor": 18, "tflops": 1, "gbps": 2, "changed": 0, "checked": 8, "wrong": 0}
{"row": "s 1 uniform packing", "median": 3, "wrong": 0}
{"row": "s 1024 uniform aurora", "median": 200, "raw_floor": 100, "floor": 160, "tflops": 1, "gbps": 2, "changed": 0, "checked": 8, "wrong": 0}
JSON
  cat > "$folder/peers.jsonl" << 'JSON'
{"row": "s 1 uniform vllm-triton", "median": 80, "checked": 8, "wrong": 0}
{"row": "s 1024 uniform vllm-triton", "median": 100, "checked": 8, "wrong": 0}
{"row": "s 1 uniform transformers-batched-mm", "median": 30, "checked": 8, "wrong": 0}
JSON
  table() {
    python3 -B "$benchmarks/layer_table.py" "$folder/ours.jsonl" "$folder/peers.jsonl" --limits > "$folder/table" 2> "$folder/errors"
  }
  table || fail "$(cat "$folder/errors")"
  grep -qF '| s | uniform | 1 | 20.0 | 16.0 (1.25) | 18.0 (1.11) | 1 | 2 | 30.0 (1.50) | 80.0 (4.00) |' "$folder/table" ||
    fail "$(cat "$folder/table")"
  grep -qF '| 200 | 100 (2.00) (over 1.5) | 160 (1.25) | 1 | 2 | - | 100 (0.50) |' "$folder/table" || fail "$(cat "$folder/table")"
  # The mean of 4 and 1/2.
  grep -qF 'vllm-triton: faster in 1 of 2 cells, 1.41 times as fast' "$folder/table" || fail "$(cat "$folder/table")"
  grep -qF "over the raw floor's in 1 of 2 cells, over the attainable floor's in 0 of 1" "$folder/table" || fail "$(cat "$folder/table")"
  sed -i '2d' "$folder/peers.jsonl"
  if table; then fail "a peer's missing cell passed"; fi
  grep -q 's 1024 uniform: no row of vllm-triton' "$folder/errors" || fail "$(cat "$folder/errors")"
  sed -i 's/"wrong": 0/"wrong": 3/' "$folder/ours.jsonl"
  if table; then fail "wrong elements passed"; fi
  grep -q 's 1 uniform aurora: 3 of 8 elements are wrong' "$folder/errors" || fail "$(cat "$folder/errors")"
  echo > "$folder/ours.jsonl"
  if table; then fail "cells without aurora passed"; fi
}

what_does_not_fit_is_refused() {
  if "$bench" layer --shape 8x2x64x32 --tokens 4 --routing "$benchmarks/routing/law.json" 2> "$folder/errors"; then
    fail "a record of 64 experts ran on 8"
  fi
  grep -q 'its tokens choose 6 of 64 experts, which no chosen shape does' "$folder/errors" || fail "$(cat "$folder/errors")"
  if "$bench" layer --shape 8x2x64x32 --dtype bfloat16 2> "$folder/errors"; then fail "a CPU computed in bfloat16"; fi
  grep -q 'backend cpu does not compute in it' "$folder/errors" || fail "$(cat "$folder/errors")"
  if "$bench" calibrate --shape 8x2x64x32 --cluster-out "$folder/c.toml" 2> "$folder/errors"; then fail "one rank had ports"; fi
  grep -q 'start two or more with mpirun' "$folder/errors" || fail "$(cat "$folder/errors")"
}

calibrated_costs_are_in_the_files_that_the_planner_reads() {
  cat > "$folder/traffic.json" << 'JSON'
{"version": 1, "model": "m", "experts": 8, "top_k": 2, "dispatch_bytes_per_token": 1, "combine_bytes_per_token": 1,
 "expert_bytes": 1, "attention_us": 3.5, "layers": [{"dispatch": [[2, 1, 1, 0, 1, 1, 1, 1], [0, 2, 1, 1, 1, 1, 1, 1]]}]}
JSON
  "$mpirun" -np 2 "$bench" calibrate --shape 8x2x64x32 --rows 1,8,64 "${small[@]}" --traffic "$folder/traffic.json" \
    --traffic-out "$folder/calibrated.json" --cluster-out "$folder/cluster.toml" --json > "$folder/rows.jsonl" ||
    fail "calibration failed"
  python3 - "$folder" << 'PYTHON'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1] + "/rows.jsonl")]
cells, fit = rows[:-1], rows[-1]
assert len(cells) == 9 and fit["row"] == "8x2x64x32 fit", rows
for row in cells:  # what the planner will say of the cell, by its formula
    planned = fit["start_us"] + row["hit"] * fit["expert_us_per_hit"] + row["rows"] * fit["expert_us_per_token"]
    assert abs(planned / row["predicted"] - 1) < 0.02, (row, planned)  # shown with four digits, or three decimals
    assert row["wrong"] == 0
written = json.load(open(sys.argv[1] + "/calibrated.json"))
for key in ("expert_us_per_hit", "expert_us_per_token", "gate_us", "aggregate_us"):
    assert abs(written[key] - fit[key]) <= 1e-3 * fit[key] + 5e-4, (key, written[key], fit[key])
assert written["attention_us"] == 3.5 and written["layers"][0]["dispatch"][1][1] == 2
assert written["expert_bytes"] == 3 * 64 * 32 * 4 and written["combine_bytes_per_token"] == 64 * 4
assert written["dispatch_bytes_per_token"] == 64 * 4 + 2 * 8
PYTHON
  "$plan" place --traffic "$folder/calibrated.json" --cluster "$folder/cluster.toml" --json > "$folder/plan.json" ||
    fail "aurora-plan does not read what calibrate writes"
  python3 -c 'import json, sys; assert json.load(open(sys.argv[1]))["num_gpus"] == 2' "$folder/plan.json"
}

bench=$2
plan=$3
"$1"

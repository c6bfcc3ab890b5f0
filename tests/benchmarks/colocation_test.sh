#!/usr/bin/env bash
# aurora-bench colocation keeps a trace of each variant: colocation_test.sh PATH-OF-AURORA-BENCH
set -euo pipefail
cd "$(dirname -- "$0")/../.."
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT

"$1" colocation --ranks 2 --requests 2 --prompt-tokens 5 --max-tokens 3 --repeats 1 --ratio 0 --deterministic \
  --traces "$folder" --json > "$folder/rows.jsonl"
python3 - "$folder" << 'PYTHON'
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
variants = [row["row"].split()[-1] for row in rows]
assert variants == ["serial", "colocated", "two-batch", "exclusive", "lina", "rec", "rga"], variants
assert all(row["changed"] == row["wrong"] == 0 and row["tokens/s"] > 0 for row in rows), rows
assert sorted(path.stem for path in folder.glob("*.json")) == sorted(variants)
for path in folder.glob("*.json"):
    spans = [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == "X"]
    assert {"attention", "experts", "head"} <= {span["name"] for span in spans}, path
PYTHON
if "$1" colocation --ranks 2 --traces "$folder/missing" > /dev/null 2> "$folder/errors"; then
  echo "a folder that is not there was taken" >&2
  exit 1
fi
grep -q -- '--traces' "$folder/errors"

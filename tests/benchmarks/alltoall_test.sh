#!/usr/bin/env bash
# aurora-bench alltoall as people start it: alltoall_test.sh CASE PATH-OF-AURORA-BENCH
set -euo pipefail
mpirun="$(dirname -- "$0")/../support/mpirun.sh"
benchmarks="$(dirname -- "$0")/../../benchmarks"
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT

fail() {
  echo "$1" >&2
  exit 1
}

every_policy_delivers_every_word() {
  printf '0 70001 8\n9 0 300000\n1 2 0\n' > "$folder/uneven.txt"
  "$mpirun" -np 3 "$bench" alltoall --matrix "$folder/uneven.txt" --ports 1,1,2 --repeats 2 --json \
    --fabric-out "$folder/fabric.json" > "$folder/rows.jsonl" || fail "the suite failed or a word was wrong"
  # By the definition of the bounds: rank 1 sends 300009 bytes at 125 bytes/us, to rank 2 no faster than that.
  python3 - "$folder/rows.jsonl" << 'PYTHON'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
policies = {row["row"].split()[-1] for row in rows}
expected = {"group", "exact", "aurora", "rotation", "longest-first", "sjf", "random", "algorithm1", "auto", "paced"}
assert expected <= policies, policies
for row in rows:
    assert row["wrong"] == 0 and row["bytes"] == 300009 and 0 < row["p10"] <= row["median"] <= row["p90"], row
    assert row["bound"] == row["one_to_one"] == 2400, row  # shown with four digits
    assert row["predicted"] > 0 and ("chosen" in row) == row["row"].endswith(" auto"), row
    if "chosen" in row:
        assert row["best"] in expected - {"auto"} and row["of_best_low"] <= row["of_best"] <= row["of_best_high"], row
PYTHON
  # By the costs that were written, auto chooses and predicts the same again.
  "$mpirun" -np 3 "$bench" alltoall --matrix "$folder/uneven.txt" --ports 1,1,2 --repeats 1 --json --policy auto \
    --fabric "$folder/fabric.json" > "$folder/again.jsonl" 2> "$folder/errors" || fail "$(cat "$folder/errors")"
  python3 - "$folder/rows.jsonl" "$folder/again.jsonl" << 'PYTHON'
import json, sys
(first, again) = ([(row["chosen"], row["predicted"]) for row in map(json.loads, open(file)) if "chosen" in row]
                  for file in sys.argv[1:])
assert first == again and len(again) == 1, (first, again)
PYTHON
}

a_matrix_of_another_size_is_refused_once() {
  printf '0 1\n1 0\n' > "$folder/two.txt"
  if "$mpirun" -np 3 "$bench" alltoall --matrix "$folder/two.txt" > /dev/null 2> "$folder/errors"; then
    fail "a matrix for 2 ran on 3 ranks"
  fi
  [[ $(grep -c '^aurora-bench: ' "$folder/errors") -eq 1 ]] || fail "not one message: $(cat "$folder/errors")"
  grep -q 'two.txt is for 2 GPUs; start that many ranks, not 3' "$folder/errors" || fail "$(cat "$folder/errors")"
}

matrices_are_written_as_they_are_read() {
  printf '5 70001\n9 5\n' > "$folder/two by two.txt"
  run() {
    "$mpirun" -np 2 "$bench" alltoall --policy group --repeats 1 --json "$@" 2> "$folder/errors"
  }
  run --family all --routing "$benchmarks/routing" --bytes-per-rank 4k,64k --matrices-out "$folder/new/families" \
    > "$folder/rows.jsonl" || fail "$(cat "$folder/errors")"
  run --matrix "$folder/two by two.txt" --matrices-out "$folder/new" > /dev/null || fail "$(cat "$folder/errors")"
  diff - "$folder/new/two-by-two" <<< $'# two by two\n0 70001\n9 0' || fail "not the matrix"
  run --matrix "$folder/new/families/sparse-65536" --matrices-out "$folder/again" > /dev/null ||
    fail "what was written is not read"
  diff <(tail -n 2 "$folder/new/families/sparse-65536") <(tail -n 2 "$folder/again/sparse-65536") || fail "not the same"
  python3 -B - "$folder/rows.jsonl" "$folder/new/families" "$benchmarks" << 'PYTHON'
import json, sys
sys.path.insert(0, sys.argv[3])
from alltoall_messages import busiest_bytes, read_matrices
rows = [json.loads(line) for line in open(sys.argv[1])]
assert all(row["wrong"] == 0 for row in rows), rows
busiest = {row["row"].removeprefix("mpi ").removesuffix(" group"): row["bytes"] for row in rows}
matrices = read_matrices(sys.argv[2], 2)
assert len(matrices) == len(rows) >= 2 * 17 and {name: busiest_bytes(matrix) for name, matrix in matrices} == busiest
PYTHON
  if run --family uniform --matrices-out "$folder/rows.jsonl/new"; then fail "a file became a folder"; fi
  grep -q "^aurora-bench: .*--matrices-out: cannot create $folder/rows.jsonl/new: " "$folder/errors" ||
    fail "$(cat "$folder/errors")"
  mkdir "$folder/new/uniform-2097152"
  if run --family uniform --matrices-out "$folder/new"; then fail "a folder became a file"; fi
  grep -q "matrices-out: cannot write $folder/new/uniform-2097152" "$folder/errors" || fail "$(cat "$folder/errors")"
}

peers_exchange_what_the_files_say() {
  mkdir "$folder/matrices"
  printf '# some name 7\n9 1 2 # to 0, 1, 2\n\n3 9 4\n5\t6 9\n' > "$folder/matrices/b-7"
  printf '0 8 8\n8 0 8\n8 8 0\n' > "$folder/matrices/alike.txt"
  python3 -B - "$folder/matrices" "$benchmarks" << 'PYTHON'
import pathlib, struct, sys
sys.path.insert(0, sys.argv[2])
from alltoall_messages import *
folder = pathlib.Path(sys.argv[1])
(alike_name, alike), (name, uneven) = read_matrices(folder, 3)
assert (alike_name, name) == ("alike", "some name 7") and uneven == [[0, 1, 2], [3, 0, 4], [5, 6, 0]], uneven
assert (busiest_bytes(uneven), common_bytes(uneven), common_bytes(alike)) == (11, 0, 8)
assert with_diagonal(alike, 8) == [[8] * 3] * 3 and alike[1][1] == 0
assert column(uneven, 2) == [2, 4, 0] and offsets([2, 0, 4, 1]) == [0, 2, 2, 6]
for source, destination, size in ((0, 1, 0), (0, 1, 8), (2, 0, 21), (1000, 3, 8 * 300)):
    words = b"".join(struct.pack("<q", (source + 1) << 52 ^ (destination + 1) << 40 ^ position)
                     for position in range(size // 8 + 1))
    assert payload(source, destination, size) == words[:size], (source, destination, size)
row = make_row("n", uneven, [[1.0, 20.0, 3000.4], [2.00049, 10.0, 3.0]], 5)  # of two ranks, three repetitions
assert row == {"suite": "alltoall", "row": "n", "bytes": 11, "median": 20.0, "p10": 2.0, "p90": 3000.0, "wrong": 5}, row
assert table([row]).splitlines()[1].split() == ["n", "11", "20.0", "2.0", "3000.0", "5"]
for text in ("", "1 2", "1 2\n3", "1 -2\n3 4", "1 x\n3 4", "1 2.0\n3 4"):
    try:
        parse_matrix(text, "m")
    except ValueError as error:
        assert str(error).startswith("m: "), error
    else:
        raise AssertionError(text)
try:
    read_matrices(folder, 2)
except ValueError as error:
    assert "is for 3 GPUs" in str(error)
else:
    raise AssertionError("matrices for 3 were read for 2 ranks")
PYTHON
}

bench=$2
"$1"

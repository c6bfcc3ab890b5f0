#!/usr/bin/env python3
"""The uniform routing of `aurora-bench layer` (benchmarks/layer/routing.h), and replayed records, for other programs.

    layer_routing.py EXPERTS TOP_K TOKENS SEED     prints the expert ids, a line a token

Python's standard library only.
"""
import json
import sys
from pathlib import Path

MASK = (1 << 64) - 1


def split_mix(seed):
    """Yields the numbers of SplitMix64."""
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def uniform_routing(num_experts, top_k, num_tokens, seed):
    """A list of top_k expert ids for each token."""
    draws = split_mix(seed)
    routing = []
    for _ in range(num_tokens):
        moved = {}  # what a shuffle of 0, 1, ... has put elsewhere
        experts = []
        for step in range(top_k):
            other = step + next(draws) % (num_experts - step)
            experts.append(moved.get(other, other))
            moved[other] = moved.get(step, step)
        routing.append(experts)
    return routing


def replayed_routing(record_file, num_experts, top_k, num_tokens):
    """Consecutive tokens of the record's middle layer from its middle token on; None where the record is of another
    number of experts or top-k."""
    record_file = Path(record_file)
    record = json.loads(record_file.read_text(encoding="utf-8"))
    if (record["experts"], record["topk"]) != (num_experts, top_k):
        return None
    width = 1 if record["dtype"] == "uint8" else 2
    data = record_file.with_suffix(".topk.u8" if width == 1 else ".topk.u16").read_bytes()
    layer_start = record["layers"] // 2 * record["tokens"] * top_k
    routing = []
    for index in range(num_tokens):
        token = (record["tokens"] // 2 + index) % record["tokens"]
        start = layer_start + token * top_k
        routing.append([int.from_bytes(data[width * i:width * (i + 1)], "little") for i in range(start, start + top_k)])
    return routing


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    for row in uniform_routing(*map(int, sys.argv[1:])):
        print(", ".join(map(str, row)))

#!/usr/bin/env python3
"""Joins rows of `aurora-bench layer --json` and layer_peers.py into one table in Markdown, with ratios and a summary.

    layer_table.py ROWS.jsonl... [--limits]

All rows should be of one run on one device. A cell is a shape, a number of tokens and a routing; every peer's column
is its time in microseconds and, behind it, how many times aurora's. --limits marks cells of aurora that are further
from a floor than the limits below. Ends with 1 when a cell has no row of aurora, when a peer lacks cells that it could
have, or when an element is wrong. Python's standard library only.
"""
import argparse
import json
import math
import sys

US, THEM = "aurora", ["torch-grouped-mm", "torch-product-per-expert", "transformers-grouped-mm",
                      "transformers-batched-mm", "vllm-triton", "sglang-triton"]
PARTIAL = {"transformers-batched-mm"}  # not measured in every cell
TRITON = ["vllm-triton", "sglang-triton"]
RAW_LIMITS = [(1, 2.0), (8, 1.6), (256, 1.25), (4096, 1.5), (math.inf, 1.35)]  # up to these tokens, over the raw floor
FLOOR_LIMIT, FLOOR_LIMIT_FROM = 1.35, 512  # over the attainable floor


def fail(text):
    sys.exit(f"layer_table.py: {text}")


def read_rows(paths):
    """(shape, tokens, routing) -> implementation -> row, in the order of the files; stages are left out."""
    cells = {}
    for path in paths:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                    shape, tokens, routing, implementation = row["row"].split(" ")
                    key = (shape, int(tokens), routing)
                    median, wrong = float(row["median"]), int(row["wrong"])
                except (ValueError, KeyError, TypeError) as error:
                    fail(f"{path}: line {number}: {error!r}")
                if implementation not in [US, *THEM]:
                    continue
                if not median > 0:
                    fail(f"{path}: line {number}: the median is {median}")
                if implementation in cells.setdefault(key, {}):
                    fail(f"{path}: line {number}: {row['row']} is there twice")
                cells[key][implementation] = {**row, "median": median, "wrong": wrong}
    if not cells:
        fail("no rows")
    return dict(sorted(cells.items(), key=lambda cell: (list_of_shapes(cells).index(cell[0][0]), cell[0][2], cell[0][1])))


def list_of_shapes(cells):
    return list(dict.fromkeys(shape for shape, _, _ in cells))


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def over_floor(row, floor, limit, tokens, from_tokens=0):
    ratio = row["median"] / row[floor]
    mark = f" (over {limit})" if limit and tokens >= from_tokens and ratio > limit else ""
    return f"{number(row[floor])} ({ratio:.2f}){mark}", bool(mark)


def table_lines(cells, peers, with_limits):
    header = ["shape", "routing", "T", US, "raw floor", "attainable", "TFLOP/s", "GB/s", *peers]
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for (shape, tokens, routing), rows in cells.items():
        ours = rows[US]
        limit = next(limit for most, limit in RAW_LIMITS if tokens <= most) if with_limits else None
        raw, _ = over_floor(ours, "raw_floor", limit, tokens)
        floor, _ = over_floor(ours, "floor", FLOOR_LIMIT if with_limits else None, tokens, FLOOR_LIMIT_FROM)
        columns = [shape, routing, str(tokens), number(ours["median"]), raw, floor, f"{ours['tflops']:.3g}",
                   f"{ours['gbps']:.4g}"]
        for peer in peers:
            columns.append("-" if peer not in rows else
                           f"{number(rows[peer]['median'])} ({rows[peer]['median'] / ours['median']:.2f})")
        yield "| " + " | ".join(columns) + " |"


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def compared(name, ratios):
    """What is said of a peer: `ratios` are its times over ours."""
    faster = sum(ratio > 1 for ratio in ratios)
    return (f"- against {name}: faster in {faster} of {len(ratios)} cells, {geometric_mean(ratios):.2f} times as fast in the "
            f"geometric mean, {min(ratios):.2f} to {max(ratios):.2f}")


def summary_lines(cells, peers, with_limits):
    for peer in peers:
        yield compared(peer, [rows[peer]["median"] / rows[US]["median"] for rows in cells.values() if peer in rows])
    best = [min(rows[peer]["median"] for peer in TRITON if peer in rows) / rows[US]["median"]
            for rows in cells.values() if any(peer in rows for peer in TRITON)]
    if best:
        yield compared("the best Triton kernel", best)
    if not with_limits:
        return
    over_raw = over_attainable = 0
    for (_, tokens, _), rows in cells.items():
        limit = next(limit for most, limit in RAW_LIMITS if tokens <= most)
        over_raw += over_floor(rows[US], "raw_floor", limit, tokens)[1]
        over_attainable += over_floor(rows[US], "floor", FLOOR_LIMIT, tokens, FLOOR_LIMIT_FROM)[1]
    num_large = sum(tokens >= FLOOR_LIMIT_FROM for _, tokens, _ in cells)
    yield f"- limits: over the raw floor's in {over_raw} of {len(cells)} cells, over the attainable floor's in " \
          f"{over_attainable} of {num_large}"


def complaints(cells, peers):
    for key, rows in cells.items():
        name = " ".join(map(str, key))
        if US not in rows:
            yield f"{name}: no row of {US}"
        for peer in peers:
            if peer not in rows and peer not in PARTIAL:
                yield f"{name}: no row of {peer}, which has others"
        for implementation, row in rows.items():
            if row["wrong"] != 0:
                yield f"{name} {implementation}: {row['wrong']} of {row['checked']} elements are wrong"
            if row.get("changed", 0) != 0:
                yield f"{name} {implementation}: {row['changed']} elements changed from run to run"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+")
    parser.add_argument("--limits", action="store_true")
    arguments = parser.parse_args()
    cells = read_rows(arguments.rows)
    present = {implementation for rows in cells.values() for implementation in rows}
    peers = [peer for peer in THEM if peer in present]
    bad = list(complaints(cells, peers))
    whole = {key: rows for key, rows in cells.items() if US in rows}
    for line in [*table_lines(whole, peers, arguments.limits), "", *summary_lines(whole, peers, arguments.limits)]:
        print(line)
    devices = sorted({row["device"] for rows in cells.values() for row in rows.values() if "device" in row})
    if len(devices) > 1:
        bad.append(f"rows of several devices: {', '.join(devices)}")
    stamps = sorted({json.dumps(row["stamp"]) for rows in cells.values() for row in rows.values() if "stamp" in row})
    print("\n" + "\n".join([*(f"device: {device}" for device in devices), *(f"stamp: {stamp}" for stamp in stamps)]))
    if bad:
        fail("\n".join(bad))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What re-planning makes of a workload that changes in mid-run, measured: aurora-serve on the emulated hosts of
tests/testbed answers requests whose routing is one recorded workload's, then another's.

    benchmarks/drift_serving.py --serve build/release/bin/aurora-serve --plan build/release/bin/aurora-plan
        [--gbps 0.2] [--rounds 2] [--waves 2,6] [--json rows.jsonl]

Sides, one run each in every round: `off` keeps the plan for the first workload, `drift` begins with it and may change
it (--replan drift), `hindsight` has the plan for the second workload from the start. All ranks are always full, all
answers equally long, so requests go in waves; the throughput of each is compared, but for the last, and the answers must
be the same on all sides. Ends with 1 when an answer differs or is missing.

The model is drawn at random in the shape that the records were made with, 64 experts of which each token takes six,
with rows of real width and small experts, so that exchanges and not two cores are what takes the time. Needs numpy or
torch, and what the testbed needs.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import random_checkpoint

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "benchmarks" / "routing"
HOSTS, REQUESTS_PER_RANK = 8, 16
LAYERS = range(10, 14)  # of the records' 26: in the middle
PROMPT_TOKENS, NEW_TOKENS = 4, 48
REQUEST_TOKENS = PROMPT_TOKENS + NEW_TOKENS
WAVE = HOSTS * REQUESTS_PER_RANK
MOST_WAVES = 8  # a server takes 1,024 requests in at once, and the clock of later ones starts later
CONFIG = {**random_checkpoint.SHAPES["olmoe-1b-7b"], "hidden_size": 512, "num_hidden_layers": len(LAYERS),
          "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 32, "num_experts": 64,
          "num_experts_per_tok": 6, "vocab_size": 512}
ROW_BYTES = 4 * CONFIG["hidden_size"]  # float32
EXPERT_BYTES = 3 * 4 * CONFIG["hidden_size"] * CONFIG["intermediate_size"]
SIDES = {"off": ("first", []), "hindsight": ("second", []),
         "drift": ("first", ["--replan", "drift", "--replan-interval", "10", "--replan-half-life", "20",
                             "--replan-horizon", "100"])}


def requests_of(name, count):
    """[request][layer] bytes of a record's tokens, cut into requests, from the front again when it is over."""
    record = json.loads((RECORDS / f"{name}.json").read_text())
    ids = (RECORDS / f"{name}.topk.u8").read_bytes()
    width, tokens = record["topk"], record["tokens"]
    starts = range(0, tokens - REQUEST_TOKENS + 1, REQUEST_TOKENS)
    cut = [[ids[(layer * tokens + start) * width:(layer * tokens + start + REQUEST_TOKENS) * width] for layer in LAYERS]
           for start in starts]
    return [cut[index % len(cut)] for index in range(count)]


def write_record(folder, name, requests):
    path = folder / f"{name}.json"
    path.write_text(json.dumps({
        "version": 1, "model": "drift", "layers": len(LAYERS), "experts": CONFIG["num_experts"],
        "topk": CONFIG["num_experts_per_tok"], "tokens": REQUEST_TOKENS * len(requests), "dtype": "uint8",
        "layout": "[layer][token][k] row-major", "request_token_counts": [REQUEST_TOKENS] * len(requests)}))
    (folder / f"{name}.topk.u8").write_bytes(
        b"".join(b"".join(request[layer] for request in requests) for layer in range(len(LAYERS))))
    return path


def prepare(arguments, folder):
    """The checkpoint, one configuration for each plan, and the prompts."""
    random_checkpoint.write_checkpoint(folder / "checkpoint", CONFIG, 1)
    first, second = (requests_of(name, waves * WAVE) for name, waves in zip(("law", "summary"), arguments.waves))
    replayed = write_record(folder, "both", first + second)
    for name, requests in (("first", first), ("second", second)):
        subprocess.run([arguments.plan, "import", write_record(folder, name, requests), "--model", "drift", "--gpus", str(HOSTS),
                        "--dispatch-bytes", str(ROW_BYTES), "--combine-bytes", str(ROW_BYTES), "--expert-bytes",
                        str(EXPERT_BYTES), "--out", folder / f"{name}.traffic"], check=True, stdout=subprocess.DEVNULL)
        (folder / f"{name}.cfg").write_text(
            f'version = 1\npath = "{folder}/checkpoint"\nname = "drift"\ntraffic = "{folder}/{name}.traffic"\n'
            f'replay_routing = "{replayed}"\nmax_batch_requests = {REQUESTS_PER_RANK}\n')
    with (folder / "prompts.jsonl").open("w") as prompts:
        for index in range(len(first) + len(second)):
            prompts.write(json.dumps({
                "prompt_token_ids": [(7 * index + place) % CONFIG["vocab_size"] for place in range(PROMPT_TOKENS)],
                "max_tokens": NEW_TOKENS, "ignore_eos": True}) + "\n")


def serve(arguments, folder, side):
    """Answers and report of one run."""
    plan, flags = SIDES[side]
    answers, report = folder / f"{side}.answers", folder / f"{side}.report"
    subprocess.run(["tests/testbed/run.sh", "--hosts", str(HOSTS), "--gbps", str(arguments.gbps), "--", "sh", "-c",
                    'exec "$@" --cluster "$TESTBED_CLUSTER"', "sh", arguments.serve, "--models", folder / f"{plan}.cfg",
                    "--prompts", folder / "prompts.jsonl", "--output", answers, "--report", report, "--deterministic",
                    "--order", "group", "--quiet", *flags], check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    return [json.loads(line) for line in answers.read_text().splitlines()], json.loads(report.read_text())


def wave_rates(answers):
    """Tokens a second of each wave, a wave being the next so many tokens of all; not of the last, in which ranks run
    dry one after the other. An answer's tokens come evenly between its first and its last."""
    times = []
    for timing in (answer["timing"] for answer in answers):
        step = (timing["total"] - timing["first_token"]) / (NEW_TOKENS - 1)
        times += [timing["first_token"] + step * index for index in range(NEW_TOKENS)]
    times.sort()
    size = WAVE * NEW_TOKENS
    ends = times[size - 1:len(times) - size:size]
    return [size / (end - before) for before, end in zip([0] + ends, ends)]


def compare(arguments, folder):
    rates = {side: [] for side in SIDES}
    tokens, wrong, switches = None, 0, []
    for _ in range(arguments.rounds):
        for side in SIDES:
            answers, report = serve(arguments, folder, side)
            found = [answer.get("token_ids") for answer in answers]
            tokens = tokens or found
            wrong += sum(a != b for a, b in zip(tokens, found)) + abs(len(tokens) - len(found))
            rates[side].append(wave_rates(answers))
            if side == "drift":
                switches.append(report["replan"])
    return rates, wrong, switches


def rows_of(arguments, rates, wrong, switches):
    """Medians over the rounds, wave by wave."""
    by_wave = {side: [statistics.median(wave) for wave in zip(*rounds)] for side, rounds in rates.items()}
    first = arguments.waves[0]
    for wave in range(len(by_wave["off"])):
        best = by_wave["hindsight"][wave]
        yield {"suite": "drift-serving", "row": f"wave {wave + 1} {'first' if wave < first else 'second'}",
               **{side: round(by_wave[side][wave], 1) for side in SIDES},
               "off_percent": round(100 * by_wave["off"][wave] / best, 1),
               "drift_percent": round(100 * by_wave["drift"][wave] / best, 1), "wrong": wrong}
    print("re-planning, round by round: " + json.dumps(switches)[:2000], file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", type=Path, required=True, help="aurora-serve")
    parser.add_argument("--plan", type=Path, required=True, help="aurora-plan")
    parser.add_argument("--gbps", type=float, default=0.2, help="of every port")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--waves", type=lambda text: [int(n) for n in text.split(",")], default=[2, 6],
                        help="of the first workload and of the second")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    if len(arguments.waves) != 2 or min(arguments.waves) < 1 or sum(arguments.waves) > MOST_WAVES:
        parser.error(f"--waves takes two numbers from 1 that sum up to {MOST_WAVES} at most")
    arguments.serve, arguments.plan = arguments.serve.resolve(), arguments.plan.resolve()
    with tempfile.TemporaryDirectory() as folder:
        prepare(arguments, Path(folder))
        rows = list(rows_of(arguments, *compare(arguments, Path(folder))))
    columns = [name for name in rows[0] if name != "suite"]
    print("  ".join(columns))
    for row in rows:
        print("  ".join(str(row[name]) for name in columns))
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sys.exit(1 if rows[0]["wrong"] else 0)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()

#!/usr/bin/env python3
"""Decoding speed of aurora-serve on one GPU beside Hugging Face transformers: one model, the same weights, one run.

    compare_transformers_gpu.py --checkpoint FOLDER [--batches 1,8,32,128] [--serve-arguments "..."]

Both sides continue the same random prompts by the same number of greedy tokens in bfloat16 and ignore end tokens, one
batch after the other; loading is counted on neither side. transformers runs each of its experts implementations and
the fastest counts. The memory of the GPU may hold the model once only, so the sides are measured one after the other.

Columns: tokens/s of both sides (median of the repeats); the floor of a step (weights that the batch touches, over
--bandwidth; see benchmarks/README.md) as tokens/s and aurora's share of it; the share of generated tokens on which the
two sides agree (greedy decoding of random weights has near ties, so rounding flips some, and all that follow).
"""
import argparse
import json
import pathlib
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

from compare_transformers import ROOT, Worker, fail, make_stamp

EXPERTS = ["grouped_mm", "batched_mm"]


def say(side, batch, seconds, max_tokens):
    """What is known so far, as a long run may be cut off."""
    print(f"  {side}, batch {batch}: {batch * max_tokens / seconds:.1f} tokens/s", file=sys.stderr, flush=True)


def make_prompts(config, batch, length):
    draw = random.Random(batch)
    return [[draw.randrange(config["vocab_size"]) for _ in range(length)] for _ in range(batch)]


def decode_step_bytes(config, batch):
    """Bytes of weights that one decode step of `batch` tokens reads at least, with uniform routing."""
    hidden, layers, heads, kv_heads, experts, top_k = (
        config[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                                "num_experts", "num_experts_per_tok"))
    head = config.get("head_dim") or hidden // heads
    inner = config.get("moe_intermediate_size") or config["intermediate_size"]
    experts_hit = experts * (1 - (1 - top_k / experts) ** batch)
    layer = hidden * head * (2 * heads + 2 * kv_heads) + experts * hidden + experts_hit * 3 * hidden * inner
    return 2 * (layers * layer + hidden * config["vocab_size"])


class AuroraSide:
    """One aurora-serve that answers lines from its standard input."""

    def __init__(self, arguments, folder, largest_batch):
        configuration = folder / "model.cfg"
        configuration.write_text(f'version = 1\nname = "model"\npath = "{arguments.checkpoint.resolve()}"\n')
        self.log = folder / "aurora.log"
        self.num_asked = 0
        command = [*shlex.split(arguments.launcher), str(arguments.serve), "--models", str(configuration), "--quiet",
                   "--max-batch-requests", str(largest_batch), *shlex.split(arguments.serve_arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log.open("w"), text=True)

    def run(self, prompts, max_tokens):
        """Seconds from the first prompt to the last answer, and the tokens of every prompt."""
        first = self.num_asked
        self.num_asked += len(prompts)
        lines = [json.dumps({"custom_id": str(first + index), "prompt_token_ids": ids, "max_tokens": max_tokens,
                             "ignore_eos": True}) + "\n" for index, ids in enumerate(prompts)]
        begin = time.perf_counter()
        self.process.stdin.write("".join(lines))
        self.process.stdin.flush()
        tokens = [None] * len(prompts)
        for _ in prompts:
            text = self.process.stdout.readline()
            if not text:
                fail(f"aurora-serve ended: {self.log.read_text()[-2000:]}")
            answer = json.loads(text)
            if "error" in answer:
                fail(f"request {answer['custom_id']}: {answer['error']}")
            tokens[int(answer["custom_id"]) - first] = answer["token_ids"]
        return time.perf_counter() - begin, tokens

    def close(self):
        self.process.stdin.close()
        if self.process.wait(60) != 0:
            fail(f"aurora-serve ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")


class TransformersSide:
    def __init__(self, arguments):
        self.worker = Worker(arguments.python, arguments.checkpoint, False,
                             ["--device", "cuda", "--dtype", "bfloat16"])

    def run(self, prompts, max_tokens, experts):
        settings = {"batch": len(prompts), "attention": "sdpa", "cache": "dynamic", "experts": experts, "threads": 8}
        reply = self.worker.ask({"settings": settings, "prompts": prompts, "max_tokens": max_tokens})
        if "error" in reply:
            print(f"  transformers, batch {len(prompts)}, experts {experts}: {reply['error']}", file=sys.stderr)
            return float("inf"), []
        return reply["seconds"], reply["tokens"]


def measure(run, repeats):
    """Median seconds and the last tokens; the first run warms up. Infinite seconds when that cannot be done."""
    results = [run()]
    while len(results) <= repeats and results[0][0] < float("inf"):
        results.append(run())
    return statistics.median(seconds for seconds, _ in results[1:] or results), results[-1][1]


def agreement(left, right):
    pairs = [(a, b) for one, other in zip(left, right) for a, b in zip(one, other, strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True)
    parser.add_argument("--batches", default="1,8,32,128", help="requests at once, comma separated")
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--experts", default=",".join(EXPERTS), help="experts implementations of transformers to try")
    parser.add_argument("--serve", type=pathlib.Path, default=ROOT / "build/cuda/bin/aurora-serve")
    parser.add_argument("--launcher", default="", help="for example mpirun with its flags; empty: one rank")
    parser.add_argument("--serve-arguments", default="--backend cuda", help="further flags for aurora-serve")
    parser.add_argument("--bandwidth", type=float, default=4.3e12, help="bytes per second of the GPU's memory")
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch and transformers")
    parser.add_argument("--json", type=pathlib.Path, help="append the rows to this file, as JSON lines")
    arguments = parser.parse_args()
    arguments.realtime = False
    config = json.loads((arguments.checkpoint / "config.json").read_text())
    batches = [int(batch) for batch in arguments.batches.split(",")]
    prompts = {batch: make_prompts(config, batch, arguments.prompt_tokens) for batch in batches}

    with tempfile.TemporaryDirectory() as folder:
        aurora = AuroraSide(arguments, pathlib.Path(folder), max(batches))
        ours = {}
        for batch in batches:
            ours[batch] = measure(lambda: aurora.run(prompts[batch], arguments.max_tokens), arguments.repeats)
            say("aurora-serve", batch, ours[batch][0], arguments.max_tokens)
        aurora.close()
    peer = TransformersSide(arguments)
    theirs = {}
    for batch in batches:
        theirs[batch] = {}
        for experts in arguments.experts.split(","):
            run = measure(lambda: peer.run(prompts[batch], arguments.max_tokens, experts), arguments.repeats)
            theirs[batch][experts] = run
            say(f"transformers with {experts}", batch, run[0], arguments.max_tokens)
    stamp = make_stamp(arguments, peer.worker.versions)
    peer.worker.close()

    lines = []
    print(f"{'batch':>6} {'aurora':>10} {'transformers':>13} {'experts':>11} {'ratio':>6} {'floor':>10} {'% of it':>8} "
          f"{'agree':>6}")
    for batch in batches:
        count = batch * arguments.max_tokens
        best = min(theirs[batch], key=lambda experts: theirs[batch][experts][0])
        if theirs[batch][best][0] == float("inf"):
            fail(f"transformers cannot run a batch of {batch}")
        floor = batch / (decode_step_bytes(config, batch) / arguments.bandwidth)
        row = {"benchmark": "compare_transformers_gpu", "checkpoint": arguments.checkpoint.name, "batch": batch,
               "aurora_tokens_per_second": count / ours[batch][0],
               "transformers_tokens_per_second": count / theirs[batch][best][0], "transformers_experts": best,
               "ratio": theirs[batch][best][0] / ours[batch][0], "floor_tokens_per_second": floor,
               "percent_of_floor": 100 * count / ours[batch][0] / floor,
               "agreement": agreement(ours[batch][1], theirs[batch][best][1])}
        print(f"{batch:6d} {row['aurora_tokens_per_second']:10.1f} {row['transformers_tokens_per_second']:13.1f} "
              f"{best:>11} {row['ratio']:6.2f} {floor:10.0f} {row['percent_of_floor']:8.1f} {row['agreement']:6.2f}")
        lines.append(json.dumps({**row, "stamp": stamp}) + "\n")
    if arguments.json:
        with arguments.json.open("a") as file:
            file.writelines(lines)


if __name__ == "__main__":
    main()

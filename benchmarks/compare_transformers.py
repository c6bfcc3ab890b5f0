#!/usr/bin/env python3
"""Throughput of aurora-serve on CPUs beside Hugging Face transformers: two models, the same prompts, one run.

Both sides continue 64 prompts (the twelve of each model's reference.json, repeated, half of them for each model) by
64 greedy tokens in float32 and ignore end tokens. transformers gets every batching it has: all requests of a model in
one padded batch or several, each attention, experts and cache implementation, both models one after the other on all
cores or side by side on half of them each; its fastest combination is kept. Then the two sides are measured in turns.

Loading is counted on neither side. Reported: median, 10th and 90th percentile of generated tokens per second; the
bound (only the float32 matrix products of the model, at the rate at which this machine multiplies large matrices) and
the share of it; wrong tokens (against reference.json). Ends with status 1 when anything is missing, empty, wrong or of
unequal length.
"""

import argparse
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ["tiny-mixtral", "tiny-qwen3-moe"]
SETTINGS = {  # the first value of each is where the search starts
    "batch": [64, 32, 16, 8],
    "attention": ["sdpa", "eager"],
    "cache": ["dynamic", "static"],
    "experts": ["eager", "grouped_mm", "batched_mm"],
}
PROBE_TOKENS = 8  # generated per request to see whether a setting is worth a whole run
SEARCH_REPEATS = 3
ONE_BY_ONE = "transformers, models one after the other"
SIDE_BY_SIDE = "transformers, models side by side"


def fail(text):
    sys.exit(f"compare_transformers: {text}")


# --- the work ---------------------------------------------------------------------------------------------------------

def read_reference(folder):
    file = folder / "reference.json"
    if not file.is_file():
        fail(f"{file} is missing")
    prompts = json.loads(file.read_text()).get("prompts", [])
    if not prompts:
        fail(f"{file} holds no prompts")
    return prompts


def make_requests(folders, num_requests, max_tokens):
    """Alternating between the models, each cycling through its prompts: dicts with model, ids, reference tokens."""
    references = {folder.name: read_reference(folder) for folder in folders}
    requests = []
    for index in range(num_requests):
        model = folders[index % len(folders)].name
        prompts = references[model]
        prompt = prompts[(index // len(folders)) % len(prompts)]
        requests.append({"model": model, "ids": prompt["prompt_ids"], "expected": prompt["greedy_ids"][:max_tokens]})
    return requests


def matrix_flops(folder, requests, max_tokens):
    """Floating-point operations of the matrix products that the requests of one model need at least."""
    config = json.loads((folder / "config.json").read_text())
    hidden, layers, heads = (config[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    head_dim = config.get("head_dim") or hidden // heads
    experts = config.get("num_local_experts") or config["num_experts"]
    inner = config.get("moe_intermediate_size") or config["intermediate_size"]
    projections = hidden * head_dim * (2 * heads + 2 * config["num_key_value_heads"])
    per_token = 2 * layers * (projections + config["num_experts_per_tok"] * 3 * hidden * inner + hidden * experts)
    total = 0
    for request in requests:
        length = len(request["ids"]) + max_tokens - 1
        attention = 4 * layers * heads * head_dim * length * (length + 1) // 2
        total += length * per_token + attention + 2 * max_tokens * hidden * config["vocab_size"]
    return total


def count_wrong(requests, tokens, max_tokens, side):
    """Tokens that differ from the reference, as far as that goes; unequal counts end the comparison."""
    if len(tokens) != len(requests):
        fail(f"{side} answered {len(tokens)} of {len(requests)} requests")
    wrong = 0
    for index, (request, ids) in enumerate(zip(requests, tokens)):
        if ids is None or len(ids) != max_tokens:
            fail(f"{side} gave {0 if ids is None else len(ids)} tokens for request {index}, not {max_tokens}")
        wrong += sum(left != right for left, right in zip(ids, request["expected"]))
    return wrong


# --- transformers -----------------------------------------------------------------------------------------------------

class Worker:
    """A process of transformers_worker.py with one model."""

    def __init__(self, python, folder, realtime, options=()):
        self.realtime = realtime
        script = pathlib.Path(__file__).with_name("transformers_worker.py")
        self.folder = folder
        self.process = subprocess.Popen([python, str(script), str(folder), *options], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.versions = self.receive()

    def send(self, request):
        self.process.stdin.write(json.dumps({**request, "realtime": self.realtime}) + "\n")
        self.process.stdin.flush()

    def receive(self):
        line = self.process.stdout.readline()
        if not line:
            fail(f"transformers with {self.folder} ended: {self.process.stderr.read()[-2000:]}")
        return json.loads(line)

    def ask(self, request):
        self.send(request)
        return self.receive()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def prompts_of(requests, folder):
    return [request["ids"] for request in requests if request["model"] == folder.name]


def search_settings(worker, prompts, max_tokens, threads):
    """One setting at a time, each kept at its fastest: what transformers does best for this model."""
    best = {**{key: values[0] for key, values in SETTINGS.items()}, "threads": threads}

    def seconds_with(settings, num_tokens, repeats):
        taken = []
        for _ in range(repeats):
            reply = worker.ask({"settings": settings, "prompts": prompts, "max_tokens": num_tokens})
            if "error" in reply:
                print(f"  {worker.folder.name} {settings}: {reply['error']}", file=sys.stderr)
                return float("inf")
            taken.append(reply["seconds"])
        return min(taken)

    # Some implementations are a hundred times slower: a short run shows them, and warms up the others.
    probe = seconds_with(best, PROBE_TOKENS, 2)
    fastest = seconds_with(best, max_tokens, SEARCH_REPEATS)
    if fastest == float("inf"):
        fail(f"transformers cannot run {worker.folder}")
    for key, values in SETTINGS.items():
        for value in values[1:]:
            settings = {**best, key: value}
            slowdown = seconds_with(settings, PROBE_TOKENS, 2) / probe
            if slowdown < 3:
                seconds = seconds_with(settings, max_tokens, SEARCH_REPEATS)
                slowdown = seconds / fastest
            print(f"  {worker.folder.name}, {threads} threads: {key} {value} takes {slowdown:.2f} of the best so far",
                  file=sys.stderr)
            if slowdown < 1:
                best, fastest = settings, seconds
    return best


def run_transformers(workers, settings, requests, max_tokens, side_by_side):
    """Seconds for all requests of both models, and their tokens in the order of the requests."""
    jobs = [(worker, {"settings": settings[worker.folder.name], "prompts": prompts_of(requests, worker.folder),
                      "max_tokens": max_tokens}) for worker in workers]
    if side_by_side:
        for worker, job in jobs:
            worker.send(job)
        replies = [worker.receive() for worker, _ in jobs]
    else:
        replies = [worker.ask(job) for worker, job in jobs]
    for (worker, _), reply in zip(jobs, replies):
        if "error" in reply:
            fail(f"transformers with {worker.folder}: {reply['error']}")
    seconds = [reply["seconds"] for reply in replies]
    answers = {worker.folder.name: iter(reply["tokens"]) for (worker, _), reply in zip(jobs, replies)}
    tokens = [next(answers[request["model"]]) for request in requests]
    return (max(seconds) if side_by_side else sum(seconds)), tokens


# --- aurora -----------------------------------------------------------------------------------------------------------

def write_job(folder, models, requests, max_tokens):
    lines = [json.dumps({"custom_id": str(index), "model": request["model"], "prompt_token_ids": request["ids"],
                         "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True})
             for index, request in enumerate(requests)]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    for model in models:
        text = f'version = 1\nname = "{model.name}"\npath = "{model}"\ndtype = "float32"\n'
        (folder / f"{model.name}.cfg").write_text(text)


def run_aurora(arguments, folder, models, requests):
    """Seconds that aurora-serve took for all requests, without loading, and their tokens."""
    configurations = ",".join(str(folder / f"{model.name}.cfg") for model in models)
    output, report = folder / "out.jsonl", folder / "report.json"
    for file in (output, report):
        file.unlink(missing_ok=True)
    priority = ["chrt", "--rr", "1"] if arguments.realtime else []
    command = [*priority, *shlex.split(arguments.mpirun), "-np", str(arguments.ranks), str(arguments.serve),
               "--models", configurations, "--prompts", str(folder / "prompts.jsonl"), "--output", str(output),
               "--report", str(report), "--backend", "cpu", "--quiet", *shlex.split(arguments.serve_arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=arguments.timeout)
    if done.returncode != 0:
        fail(f"{shlex.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    if not output.is_file() or not report.is_file():
        fail(f"{shlex.join(command)} wrote no output or no report")
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    tokens = [None] * len(requests)
    for answer in answers:
        if answer.get("error"):
            fail(f"aurora-serve, request {answer['custom_id']}: {answer['error']}")
        tokens[int(answer["custom_id"])] = answer["token_ids"]
    summary = json.loads(report.read_text())
    # The report's clock must not be shorter than the answers say.
    longest = max(answer["timing"]["total"] for answer in answers)
    if not summary["wall_seconds"] >= 0.99 * longest:
        fail(f"the report says {summary['wall_seconds']} s, but an answer took {longest} s")
    return summary["wall_seconds"], tokens


# --- the table --------------------------------------------------------------------------------------------------------

def processor_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def make_stamp(arguments, versions):
    def output_of(*command):
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        return done.stdout.strip() if done.returncode == 0 else "unknown"

    stamp = {"commit": output_of("git", "rev-parse", "--short=12", "HEAD"),
             "modified": output_of("git", "status", "--porcelain", "--untracked-files=no") != "",
             "processor": processor_name(), "cores": os.cpu_count(), "load_before": os.getloadavg()[0],
             "python": platform.python_version(), **versions, "seed": None, "sampling": "greedy",
             "realtime": arguments.realtime}
    if arguments.serve:
        stamp["aurora"] = output_of(str(arguments.serve), "--version")
    return stamp


def make_row(name, settings, seconds, num_tokens, bound_seconds, wrong):
    if len(seconds) < 1 or min(seconds) <= 0 or num_tokens <= 0:
        fail(f"{name} measured nothing")
    rates = sorted(num_tokens / taken for taken in seconds)
    deciles = statistics.quantiles(rates, n=10, method="inclusive") if len(rates) > 1 else [rates[0]] * 9
    median = statistics.median(rates)
    bound = num_tokens / bound_seconds
    return {"benchmark": "compare_transformers", "name": name, "settings": settings, "repeats": len(rates),
            "generated_tokens": num_tokens, "tokens_per_second": median, "p10": deciles[0], "p90": deciles[-1],
            "bound_tokens_per_second": bound, "percent_of_bound": 100 * median / bound, "wrong_tokens": wrong}


def print_table(rows):
    print(f"{'':44} {'tokens/s':>10} {'p10':>10} {'p90':>10} {'bound':>10} {'% of it':>8} {'wrong':>6}")
    for row in rows:
        print(f"{row['name']:44} {row['tokens_per_second']:10.0f} {row['p10']:10.0f} {row['p90']:10.0f} "
              f"{row['bound_tokens_per_second']:10.0f} {row['percent_of_bound']:8.1f} {row['wrong_tokens']:6d}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(str(ROOT / "launch" / "models" / name) for name in MODELS),
                        help="checkpoint folders with reference.json, comma separated")
    parser.add_argument("--requests", type=int, default=64, help="concurrent requests over all models")
    parser.add_argument("--max-tokens", type=int, default=64, help="generated per request")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each side, in turns")
    parser.add_argument("--ranks", type=int, default=2, help="MPI processes of aurora-serve")
    parser.add_argument("--serve", type=pathlib.Path, default=ROOT / "build/release/bin/aurora-serve")
    parser.add_argument("--serve-arguments", default="", help="further flags for aurora-serve")
    parser.add_argument("--mpirun", default=str(ROOT / "tests/support/mpirun.sh"), help="launcher, with its flags")
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch and transformers")
    parser.add_argument("--only-transformers", action="store_true", help="leave aurora-serve out")
    parser.add_argument("--realtime", action="store_true",
                        help="measure both sides at real-time priority (as root), on a machine that does other things")
    parser.add_argument("--require-ratio", type=float, help="end with 1 unless Aurora is this many times faster")
    parser.add_argument("--json", type=pathlib.Path, help="append the rows to this file, as JSON lines")
    parser.add_argument("--timeout", type=float, default=300, help="seconds that one run of aurora-serve may take")
    arguments = parser.parse_args()
    if arguments.only_transformers:
        arguments.serve = None
    elif not arguments.serve.is_file():
        fail(f"{arguments.serve} is missing; build it, or name it with --serve")
    if min(arguments.requests, arguments.max_tokens, arguments.repeats, arguments.ranks) < 1:
        fail("--requests, --max-tokens, --repeats and --ranks must be positive")
    return arguments


def measure(arguments, models, workers, requests, folder):
    """Rows of every side; the sides take turns, so that what else the machine does meets them alike."""
    max_tokens = arguments.max_tokens
    cores = os.cpu_count()
    settings = {name: {worker.folder.name: search_settings(worker, prompts_of(requests, worker.folder), max_tokens,
                                                           threads) for worker in workers}
                for name, threads in ((ONE_BY_ONE, cores), (SIDE_BY_SIDE, max(1, cores // len(workers))))}

    def transformers_side(name):
        return lambda: run_transformers(workers, settings[name], requests, max_tokens, name == SIDE_BY_SIDE)

    sides = {name: transformers_side(name) for name in (ONE_BY_ONE, SIDE_BY_SIDE)}
    if not arguments.only_transformers:
        write_job(folder, models, requests, max_tokens)
        sides[f"aurora-serve, {arguments.ranks} ranks"] = lambda: run_aurora(arguments, folder, models, requests)
    seconds, wrong = {name: [] for name in sides}, dict.fromkeys(sides, 0)
    for repeat in range(arguments.repeats + 1):  # the first warms up
        for name, run in sides.items():
            taken, tokens = run()
            wrong[name] += count_wrong(requests, tokens, max_tokens, name)
            if repeat > 0:
                seconds[name].append(taken)
    flops_per_second = workers[0].ask({"sgemm": cores})["flops_per_second"]
    flops = sum(matrix_flops(model, [r for r in requests if r["model"] == model.name], max_tokens) for model in models)
    num_tokens = arguments.requests * max_tokens
    return [make_row(name, settings.get(name, arguments.serve_arguments), seconds[name], num_tokens,
                     flops / flops_per_second, wrong[name]) for name in sides]


def main():
    arguments = parse_arguments()
    models = [pathlib.Path(folder).resolve() for folder in arguments.models.split(",")]
    requests = make_requests(models, arguments.requests, arguments.max_tokens)
    workers = [Worker(arguments.python, model, arguments.realtime) for model in models]
    stamp = make_stamp(arguments, workers[0].versions)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, models, workers, requests, pathlib.Path(folder))
    for worker in workers:
        worker.close()
    print_table(rows)
    best = max((row for row in rows if row["name"] in (ONE_BY_ONE, SIDE_BY_SIDE)),
               key=lambda row: row["tokens_per_second"])
    ratio = None
    if not arguments.only_transformers:
        ratio = rows[-1]["tokens_per_second"] / best["tokens_per_second"]
        print(f"aurora-serve is {ratio:.2f} times as fast as {best['name']}, the best of transformers")
    lines = "".join(json.dumps({**row, "ratio_to_best_transformers": row["tokens_per_second"] /
                                best["tokens_per_second"], "stamp": stamp}) + "\n" for row in rows)
    print(lines, end="")
    if arguments.json:
        with arguments.json.open("a") as file:
            file.write(lines)
    if any(row["wrong_tokens"] for row in rows):
        fail("tokens differ from the reference")
    if arguments.require_ratio and ratio is not None and ratio < arguments.require_ratio:
        fail(f"{ratio:.2f} times as fast, but {arguments.require_ratio} is required")


if __name__ == "__main__":
    main()

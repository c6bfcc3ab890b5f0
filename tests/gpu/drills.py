#!/usr/bin/env python3
"""aurora-serve on GPUs under load and under failure, over NCCL:

    drills.py thousand --serve PATH [--ranks 8]    1,000 requests of mixed length through all ranks, a clean end
    drills.py kill|stop --serve PATH [--ranks 4]   SIGKILL or SIGSTOP of one rank in mid-run: the others end in time

After each drill no process of it may be left and the GPU must have its memory back. Works on the CPU build too, with
--serve-arguments "--backend cpu", which is how the script itself is tested. A killed client harms the others under
MPS, so `kill` and `stop` belong to a run without its daemon. Ends with 1 when something is not as it should be.
"""
import argparse
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = ["tiny-mixtral", "tiny-qwen3-moe"]
SEED = 20261


def fail(text):
    sys.exit(f"drills: {text}")


def gpu_memory_used():
    """MiB in use on each GPU; empty without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return []
    done = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
                          capture_output=True, text=True)
    return [int(line) for line in done.stdout.split()]


def processes_of(folder):
    """Process ids of the ranks: command lines that name this drill's folder, without mpirun and ourselves."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            variables = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        rank = re.search(r"OMPI_COMM_WORLD_RANK=(\d+)", variables)
        if "aurora-serve" in Path(words[0]).name and any(str(folder) in word for word in words) and rank:
            found[int(rank.group(1))] = int(entry.name)
    return found


def write_prompts(file, count):
    draw = random.Random(SEED)
    vocabulary = 2000
    with file.open("w") as output:
        for index in range(count):
            prompt = [draw.randrange(3, vocabulary) for _ in range(draw.choice([1, 3, 17, 64, 200]))]
            output.write(json.dumps({"custom_id": str(index), "model": MODELS[index % 2], "prompt_token_ids": prompt,
                                     "max_tokens": draw.choice([1, 8, 32, 100]), "ignore_eos": True}) + "\n")


class Run:
    """aurora-serve on both example models, in the background, in a folder of its own."""

    def __init__(self, arguments, folder, num_prompts, flags):
        self.folder, self.output = folder, folder / "answers.jsonl"
        write_prompts(folder / "prompts.jsonl", num_prompts)
        self.log = folder / "log"
        models = ",".join(str(ROOT / f"launch/configs/{name}.cfg") for name in MODELS)
        command = [*shlex.split(arguments.mpirun), "-np", str(arguments.ranks), str(arguments.serve), "--models",
                   models, "--prompts", str(folder / "prompts.jsonl"), "--output", str(self.output), *flags,
                   *shlex.split(arguments.serve_arguments)]
        self.begin = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.log.open("w"))

    def wait_for_answers(self, count, seconds):
        """Until `count` answers are on disk: the ranks are then in the middle of their work."""
        partial = Path(f"{self.output}.partial")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            if partial.exists() and partial.read_bytes().count(b"\n") >= count:
                return
            time.sleep(0.01)
        fail(f"no {count} answers within {seconds} s:\n{self.log.read_text()[-3000:]}")

    def wait(self, seconds):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            for pid in processes_of(self.folder).values():
                os.kill(pid, signal.SIGKILL)
            self.process.kill()
            fail(f"not ended after {seconds} s:\n{self.log.read_text()[-3000:]}")

    def error_lines(self):
        return [line for line in self.log.read_text().splitlines() if "[error]" in line]


def expect_nothing_left(run, memory_before):
    left = processes_of(run.folder)
    if left:
        fail(f"processes are left behind: {left}")
    deadline = time.monotonic() + 10  # the driver takes a moment to give memory back
    while True:
        grown = [after - before for before, after in zip(memory_before, gpu_memory_used())]
        if all(mib <= 64 for mib in grown):
            return
        if time.monotonic() > deadline:
            fail(f"GPU memory in use grew by {grown} MiB")
        time.sleep(0.2)


def drill_thousand(arguments, folder):
    memory = gpu_memory_used()
    run = Run(arguments, folder, 1000, [])
    code = run.wait(arguments.timeout)
    if code != 0:
        fail(f"ended with {code}:\n{run.log.read_text()[-3000:]}")
    answers = [json.loads(line) for line in run.output.read_text().splitlines()]
    asked = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    if [a["custom_id"] for a in answers] != [p["custom_id"] for p in asked]:
        fail("the answers are not those of the prompts, in their order")
    short = [a["custom_id"] for a, p in zip(answers, asked) if len(a.get("token_ids", [])) != p["max_tokens"]]
    if short:
        fail(f"{len(short)} answers have another length than asked for, the first: {short[0]}")
    expect_nothing_left(run, memory)
    tokens = sum(len(a["token_ids"]) for a in answers)
    print(f"thousand: {len(answers)} requests, {tokens} tokens on {arguments.ranks} ranks in "
          f"{time.monotonic() - run.begin:.1f} s from start to exit; nothing left behind")


def drill_signal(arguments, folder, number):
    memory = gpu_memory_used()
    run = Run(arguments, folder, 1000, ["--timeout", str(arguments.rank_timeout)])
    run.wait_for_answers(5, arguments.timeout)
    ranks = processes_of(folder)
    if sorted(ranks) != list(range(arguments.ranks)):
        fail(f"expected {arguments.ranks} ranks, found {ranks}")
    victim = arguments.ranks - 1
    os.kill(ranks[victim], number)
    begin = time.monotonic()
    survivors = {rank: pid for rank, pid in ranks.items() if rank != victim}
    limit = arguments.rank_timeout + 15
    while survivors and time.monotonic() - begin < limit:
        survivors = {rank: pid for rank, pid in survivors.items() if Path(f"/proc/{pid}").exists()}
        time.sleep(0.02)
    took = time.monotonic() - begin
    if number == signal.SIGSTOP and Path(f"/proc/{ranks[victim]}").exists():
        os.kill(ranks[victim], signal.SIGKILL)
    if survivors:
        run.wait(5)
        fail(f"ranks {sorted(survivors)} still ran {limit} s after the signal:\n{run.log.read_text()[-3000:]}")
    code = run.wait(30)
    # With --enable-recovery mpirun leaves survivors alone, and ends with 0 whatever they say.
    is_left_alone = "--enable-recovery" in arguments.mpirun
    if code == 0 and not is_left_alone:
        fail("a run that lost a rank looks like success")
    errors = run.error_lines()
    # Otherwise it may end the survivors of a killed rank before they can speak.
    if len(errors) > 1 or (not errors and (number == signal.SIGSTOP or is_left_alone)):
        fail(f"{len(errors)} error lines instead of one:\n" + "\n".join(errors))
    expect_nothing_left(run, memory)
    print(f"{number.name} of rank {victim}: all other ranks had ended {took:.1f} s later (--timeout "
          f"{arguments.rank_timeout}); {errors[0] if errors else 'no rank spoke before mpirun ended it'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drill", choices=["thousand", "kill", "stop"])
    parser.add_argument("--serve", type=Path, default=ROOT / "build/cuda/bin/aurora-serve")
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--mpirun", default=str(ROOT / "tests/support/mpirun.sh"), help="launcher, with its flags")
    parser.add_argument("--serve-arguments", default="--backend cuda --transport nccl")
    parser.add_argument("--rank-timeout", type=int, default=5, help="seconds, --timeout of aurora-serve")
    parser.add_argument("--timeout", type=float, default=300, help="seconds that a run may take")
    arguments = parser.parse_args()
    if arguments.ranks < 2:
        parser.error("--ranks must be at least 2")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.drill == "thousand":
            drill_thousand(arguments, Path(folder))
        else:
            drill_signal(arguments, Path(folder), signal.SIGKILL if arguments.drill == "kill" else signal.SIGSTOP)


if __name__ == "__main__":
    main()

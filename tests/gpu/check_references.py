#!/usr/bin/env python3
"""aurora-serve on a GPU against the references in launch/models: what transformers in float32 answered.

float32: the greedy continuations of all prompts of both models together must be equal, on every number of ranks.
bfloat16: every position of the reference continuations is asked for by itself, with the reference before it as the
prompt (teacher-forced), and the share of positions whose best token is the reference's must be at least that of
transformers in bfloat16 on the same GPU, which is measured in the same run.

    check_references.py --serve build/cuda/bin/aurora-serve --ranks 1,2,4,8

Ends with 1 when a bar is missed or anything is missing. Needs torch and transformers for the second part only.
"""
import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = ["tiny-mixtral", "tiny-qwen3-moe"]


def fail(text):
    sys.exit(f"check_references: {text}")


def read_prompts(name):
    prompts = json.loads((ROOT / "launch/models" / name / "reference.json").read_text())["prompts"]
    if not prompts:
        fail(f"{name} has no reference prompts")
    return prompts


class Server:
    """Runs aurora-serve on lines of prompts, in a folder of its own."""

    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder

    def answers(self, lines, dtype, ranks):
        """Token ids by custom_id, and the seconds of the whole process."""
        (self.folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        output = self.folder / "answers.jsonl"
        output.unlink(missing_ok=True)
        launcher = shlex.split(self.arguments.mpirun) + ["-np", str(ranks)]
        models = ",".join(str(ROOT / f"launch/configs/{name}.cfg") for name in MODELS)
        command = [*launcher, str(self.arguments.serve), "--models", models, "--dtype", dtype, "--prompts",
                   str(self.folder / "prompts.jsonl"), "--output", str(output), "--quiet",
                   *shlex.split(self.arguments.serve_arguments)]
        begin = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=self.arguments.timeout)
        seconds = time.monotonic() - begin
        if done.returncode != 0:
            fail(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
        found = {}
        for text in output.read_text().splitlines():
            answer = json.loads(text)
            if "error" in answer:
                fail(f"{answer['custom_id']}: {answer['error']}")
            found[answer["custom_id"]] = answer["token_ids"]
        if len(found) != len(lines):
            fail(f"{len(found)} answers to {len(lines)} prompts")
        return found, seconds


def check_float32(server, ranks):
    lines = [{"custom_id": f"{model}/{index}", "model": model, "prompt_token_ids": prompt["prompt_ids"],
              "max_tokens": len(prompt["greedy_ids"]), "ignore_eos": True}
             for model in MODELS for index, prompt in enumerate(read_prompts(model))]
    expected = {f"{model}/{index}": prompt["greedy_ids"]
                for model in MODELS for index, prompt in enumerate(read_prompts(model))}
    found, seconds = server.answers(lines, "float32", ranks)
    wrong = [name for name in expected if found[name] != expected[name]]
    print(f"float32, {ranks} ranks: {len(expected) - len(wrong)} of {len(expected)} references exact, {seconds:.1f} s"
          + (f"; wrong: {', '.join(wrong)}" if wrong else ""), flush=True)
    return not wrong


def forced_positions(model):
    """(name, tokens before, reference token) of every generated position."""
    for index, prompt in enumerate(read_prompts(model)):
        for at, token in enumerate(prompt["greedy_ids"]):
            yield f"{model}/{index}/{at}", prompt["prompt_ids"] + prompt["greedy_ids"][:at], token


def aurora_share(server, ranks):
    """Share of positions that agree, by model."""
    positions = {model: list(forced_positions(model)) for model in MODELS}
    lines = [{"custom_id": name, "model": model, "prompt_token_ids": before, "max_tokens": 1, "ignore_eos": True}
             for model in MODELS for name, before, _ in positions[model]]
    found, seconds = server.answers(lines, "bfloat16", ranks)
    shares = {model: sum(found[name] == [token] for name, _, token in positions[model]) / len(positions[model])
              for model in MODELS}
    print(f"bfloat16, {ranks} ranks: best token agrees at "
          + ", ".join(f"{100 * share:.2f} % of {len(positions[model])} positions of {model}"
                      for model, share in shares.items()) + f", {seconds:.1f} s", flush=True)
    return shares


def transformers_share(model, attention):
    import torch
    import transformers
    folder = ROOT / "launch/models" / model
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation=attention).eval().to("cuda")
    agreeing, total = 0, 0
    with torch.inference_mode():
        for prompt in read_prompts(model):
            ids = torch.tensor([prompt["prompt_ids"] + prompt["greedy_ids"][:-1]], device="cuda")
            best = loaded(ids).logits[0, len(prompt["prompt_ids"]) - 1:].float().argmax(-1).tolist()
            agreeing += sum(left == right for left, right in zip(best, prompt["greedy_ids"]))
            total += len(prompt["greedy_ids"])
    return agreeing / total


def check_bfloat16(server, rank_counts):
    """The default attention of transformers sets the bar; the others are shown beside it."""
    ours = [aurora_share(server, ranks) for ranks in rank_counts]
    is_met = True
    for model in MODELS:
        bar = transformers_share(model, "sdpa")
        print(f"bfloat16, transformers: {100 * bar:.2f} % of {model} with sdpa, "
              f"{100 * transformers_share(model, 'eager'):.2f} % with eager attention", flush=True)
        is_met = all(shares[model] >= bar for shares in ours) and is_met
    return is_met


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", type=Path, default=ROOT / "build/cuda/bin/aurora-serve")
    parser.add_argument("--ranks", default="1,2,4,8", help="numbers of ranks, comma separated")
    parser.add_argument("--mpirun", default=str(ROOT / "tests/support/mpirun.sh"), help="launcher, with its flags")
    parser.add_argument("--serve-arguments", default="--backend cuda", help="further flags for aurora-serve")
    parser.add_argument("--timeout", type=float, default=180, help="seconds that one run may take")
    parser.add_argument("--skip-bfloat16", action="store_true")
    arguments = parser.parse_args()
    rank_counts = [int(count) for count in arguments.ranks.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        server = Server(arguments, Path(folder))
        results = [check_float32(server, ranks) for ranks in rank_counts]
        if not arguments.skip_bfloat16:
            results.append(check_bfloat16(server, [rank_counts[0], rank_counts[-1]]))
    if not all(results):
        fail("a bar was missed")


if __name__ == "__main__":
    main()

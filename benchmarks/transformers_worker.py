"""One model in Hugging Face transformers, generating on request: the other side of compare_transformers.py.

    python3 transformers_worker.py CHECKPOINT_FOLDER [--device cuda] [--dtype bfloat16]

Reads JSON lines from standard input and answers each with one on standard output. A request is
{"settings": {...}, "prompts": [[token ids], ...], "max_tokens": n, "realtime": false}; settings are `threads`,
`attention`, `experts`, `cache` and `batch`. The answer is {"seconds": s, "tokens": [[ids], ...]} or {"error": text}.
{"sgemm": threads} measures the float32 matrix products of this machine and answers {"flops_per_second": f}.
"""

import argparse
import contextlib
import json
import os
import sys
import time

import torch
import transformers


def load(folder, device, dtype):
    transformers.logging.set_verbosity_error()
    placed = {} if device == "cpu" else {"device_map": device}  # weights go straight there
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), **placed).eval()
    # Like ignore_eos: no end token stops a sequence, none is suppressed either.
    model.generation_config.eos_token_id = None
    return model


def generate_batch(model, prompts, max_tokens, cache):
    """Greedy continuations of prompts padded on the left to one length, in one generate() call."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt):] = torch.tensor(prompt)
        mask[row, width - len(prompt):] = 1
    with torch.inference_mode():
        generated = model.generate(
            ids.to(model.device), attention_mask=mask.to(model.device), do_sample=False, max_new_tokens=max_tokens, pad_token_id=0, eos_token_id=None,
            cache_implementation="static" if cache == "static" else None)
    return generated[:, width:].tolist()


def generate(model, prompts, max_tokens, settings, realtime):
    """All prompts in batches of like length, so that little is padded."""
    torch.set_num_threads(settings["threads"])
    model.set_attn_implementation(settings["attention"])
    model.set_experts_implementation(settings["experts"])
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    tokens = [None] * len(prompts)
    with priority_of(realtime):
        begin = time.perf_counter()
        for start in range(0, len(order), settings["batch"]):
            chosen = order[start:start + settings["batch"]]
            batch = generate_batch(model, [prompts[index] for index in chosen], max_tokens, settings["cache"])
            for index, ids in zip(chosen, batch):
                tokens[index] = ids
        seconds = time.perf_counter() - begin
    return {"seconds": seconds, "tokens": tokens}


@contextlib.contextmanager
def priority_of(realtime):
    """All threads of this process at real-time priority while the block runs, if asked for."""
    def schedule(policy, priority):
        for thread in os.listdir("/proc/self/task"):
            os.sched_setscheduler(int(thread), policy, os.sched_param(priority))

    if realtime:
        schedule(os.SCHED_RR, 1)
    try:
        yield
    finally:
        if realtime:
            schedule(os.SCHED_OTHER, 0)


def measure_sgemm(threads, realtime, size=1024, repeats=20):
    torch.set_num_threads(threads)
    left, right = torch.rand(size, size), torch.rand(size, size)
    best = float("inf")
    with priority_of(realtime):
        for _ in range(repeats):
            begin = time.perf_counter()
            torch.mm(left, right)
            best = min(best, time.perf_counter() - begin)
    return {"flops_per_second": 2 * size**3 / best}


def answer(model, request):
    if "sgemm" in request:
        return measure_sgemm(request["sgemm"], request.get("realtime", False))
    return generate(model, request["prompts"], request["max_tokens"], request["settings"],
                    request.get("realtime", False))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not mix with the answers
    model = load(arguments.folder, arguments.device, arguments.dtype)
    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            reply = answer(model, json.loads(line))
        except Exception as failure:  # a setting this version cannot do is an answer, not an end
            reply = {"error": f"{type(failure).__name__}: {failure}"[:300]}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()

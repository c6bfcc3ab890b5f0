#!/usr/bin/env python3
"""Other implementations of one MoE layer, timed on the shapes, batches and routing of `aurora-bench layer`.

    layer_peers.py [--shape all] [--tokens 1,2,...] [--routing uniform|RECORD.json] [--device cuda] > peers.jsonl

One JSON line a row, as aurora-bench writes them; benchmarks/layer_table.py joins both. Implementations, those that can
be imported here (the others are named on standard error, with the reason):
    torch-grouped-mm         two grouped products and SwiGLU on rows that are sorted by expert already, nothing else
    torch-product-per-expert the same rows, one product of cuBLAS after the other; the host knows the experts' sizes
    transformers-grouped-mm  the grouped_mm experts of Hugging Face transformers, from hidden states to combined output
    transformers-batched-mm  its batched_mm experts, up to 16 tokens (it gathers the weights of every pair)
    vllm-triton              fused_experts of vLLM
    sglang-triton            fused_experts of SGLang
Timed as aurora-bench does: as many copies of weights and activations in turn as touch --rotate-bytes, whole passes over
them in one CUDA graph (without where an implementation cannot be captured: column graph), device events around it.
Every row's output is compared with float64 for some tokens: `wrong` counts elements beyond a tolerance computed as in
benchmarks/layer/reference.h, which here also grants sums over experts in the layer's type. Weights are random and not
those of aurora-bench; routing is the same.
"""
import argparse
import dataclasses
import inspect
import json
import math
import sys
import time
from pathlib import Path

import torch

from layer_routing import replayed_routing, uniform_routing

SHAPES = {  # experts, top-k, hidden, inner: benchmarks/layer/shape.cc
    "mixtral-8x7b": (8, 2, 4096, 14336),
    "qwen3-30b-a3b": (128, 8, 2048, 768),
    "olmoe-1b-7b": (64, 8, 2048, 1024),
    "deepseek-v2-lite": (64, 6, 2048, 1408),
}
TOKENS = [1, 2, 4, 8, 16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384]
MOST_COPIES = 64
SHORTEST_SAMPLE_US = 1000
FEWEST_SAMPLES = 5
LAMBDA = 8


@dataclasses.dataclass
class Layer:
    """Weights of one copy of a layer."""
    gate_up: torch.Tensor  # [experts, 2 inner, hidden], gate first
    down: torch.Tensor     # [experts, hidden, inner]


@dataclasses.dataclass
class Batch:
    """Tokens and where they go."""
    hidden: torch.Tensor   # [tokens, hidden]
    ids: torch.Tensor      # [tokens, top_k] int64
    weights: torch.Tensor  # [tokens, top_k] float32

    def sorted_rows(self, num_experts):
        """Order of pairs by expert, and where each expert's end."""
        order = torch.argsort(self.ids.reshape(-1), stable=True)
        counts = torch.bincount(self.ids.reshape(-1), minlength=num_experts)
        return order, torch.cumsum(counts, 0).to(torch.int32)


def log(text):
    print(text, file=sys.stderr, flush=True)


# ---- Implementations: from a copy of the layer and a batch to a function that runs it and returns the output, and to
# ---- what turns that output into [tokens, hidden].


def as_it_is(output):
    return output


def combine_sorted(batch, order):
    """The sum over each token's experts of outputs that are sorted by expert."""
    def combined(output):
        pairs = torch.empty_like(output, dtype=torch.float32)
        pairs[order] = output.float()
        return (pairs.view(*batch.ids.shape, -1) * batch.weights[..., None]).sum(1)

    return combined


class TorchGroupedMm:
    name = "torch-grouped-mm"

    def __init__(self):
        self.grouped_mm = getattr(torch.nn.functional, "grouped_mm", None) or getattr(torch, "_grouped_mm")

    def prepare(self, layer, batch):
        order, offsets = batch.sorted_rows(len(layer.gate_up))
        rows = batch.hidden[order // batch.ids.shape[1]]
        gate_up, down = layer.gate_up.transpose(1, 2), layer.down.transpose(1, 2)

        def run():
            gate, up = self.grouped_mm(rows, gate_up, offs=offsets).chunk(2, dim=-1)
            return self.grouped_mm(torch.nn.functional.silu(gate) * up, down, offs=offsets)

        return run, combine_sorted(batch, order)


class TorchProductPerExpert:
    name = "torch-product-per-expert"

    def prepare(self, layer, batch):
        order, ends = batch.sorted_rows(len(layer.gate_up))
        rows = batch.hidden[order // batch.ids.shape[1]]
        ends = ends.tolist()
        groups = [(expert, begin, end) for expert, (begin, end) in enumerate(zip([0, *ends], ends)) if begin < end]
        outputs = torch.empty_like(rows)

        def run():
            for expert, begin, end in groups:
                gate, up = (rows[begin:end] @ layer.gate_up[expert].T).chunk(2, dim=-1)
                torch.mm(torch.nn.functional.silu(gate) * up, layer.down[expert].T, out=outputs[begin:end])
            return outputs

        return run, combine_sorted(batch, order)


class TransformersExperts:
    def __init__(self, implementation, most_tokens=None):
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
        from transformers.models.qwen3_moe import modeling_qwen3_moe
        self.experts_class = modeling_qwen3_moe.Qwen3MoeExperts
        self.forward = ALL_EXPERTS_FUNCTIONS[implementation]
        self.implementation = implementation
        self.name = "transformers-" + implementation.replace("_", "-")
        self.most_tokens = most_tokens

    def prepare(self, layer, batch):
        from transformers import Qwen3MoeConfig
        experts, hidden, inner = layer.down.shape
        config = Qwen3MoeConfig(hidden_size=hidden, moe_intermediate_size=inner, num_experts=experts,
                                num_experts_per_tok=batch.ids.shape[1], hidden_act="silu")
        config._experts_implementation = self.implementation
        with torch.device("meta"):
            module = self.experts_class(config)
        module.gate_up_proj = torch.nn.Parameter(layer.gate_up, requires_grad=False)
        module.down_proj = torch.nn.Parameter(layer.down, requires_grad=False)
        weights = batch.weights.to(batch.hidden.dtype)
        return lambda: self.forward(module, batch.hidden, batch.ids, weights), as_it_is


class VllmTriton:
    name = "vllm-triton"

    def __init__(self):
        from vllm.config import VllmConfig, set_current_vllm_config
        from vllm.model_executor.layers.fused_moe import fused_experts
        self.fused_experts = fused_experts
        # Layers of vLLM ask for the current configuration; there is none outside its engine.
        self.context = set_current_vllm_config(VllmConfig())
        self.context.__enter__()

    def prepare(self, layer, batch):
        ids = batch.ids.to(torch.int32)
        return lambda: self.fused_experts(batch.hidden, layer.gate_up, layer.down, batch.weights, ids), as_it_is


class SglangTriton:
    name = "sglang-triton"

    def __init__(self):
        from sglang.srt.layers.moe.fused_moe_triton.fused_moe import fused_experts
        self.fused_experts = fused_experts
        self.takes_tuple = "topk_output" in inspect.signature(fused_experts).parameters

    def prepare(self, layer, batch):
        ids = batch.ids.to(torch.int32)
        if not self.takes_tuple:
            return lambda: self.fused_experts(batch.hidden, layer.gate_up, layer.down, batch.weights, ids), as_it_is
        from sglang.srt.layers.moe.moe_runner import MoeRunnerConfig
        from sglang.srt.layers.moe.topk import StandardTopKOutput
        chosen = StandardTopKOutput(batch.weights, ids, None)
        config = MoeRunnerConfig(inplace=False)
        return lambda: self.fused_experts(batch.hidden, layer.gate_up, layer.down, chosen, config), as_it_is


IMPLEMENTATIONS = {
    "torch-grouped-mm": TorchGroupedMm,
    "torch-product-per-expert": TorchProductPerExpert,
    "transformers-grouped-mm": lambda: TransformersExperts("grouped_mm"),
    "transformers-batched-mm": lambda: TransformersExperts("batched_mm", most_tokens=16),
    "vllm-triton": VllmTriton,
    "sglang-triton": SglangTriton,
}


def importable(names):
    found = []
    for name in names:
        try:
            found.append(IMPLEMENTATIONS[name]())
        except Exception as error:  # whatever a foreign package raises while it is imported
            log(f"{name}: not here: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return found


# ---- What is right


def reference_row(layer, batch, token):
    """One token's output in float64, and the tolerance of each element."""
    roundoff = 2.0 ** -8 if batch.hidden.dtype == torch.bfloat16 else 2.0 ** -24
    x = batch.hidden[token].double()
    inner = layer.down.shape[2]
    value = torch.zeros_like(x)
    size = torch.zeros_like(x)
    squares = torch.zeros_like(x)

    def dot(matrix, vector):
        error = LAMBDA * math.sqrt(len(vector)) * 2.0 ** -23 * (matrix.abs() @ vector.abs())
        return matrix @ vector, error

    for expert, weight in zip(batch.ids[token].tolist(), batch.weights[token].double()):
        (gate, up), (gate_error, up_error) = (part.view(2, inner) for part in dot(layer.gate_up[expert].double(), x))
        sigmoid = torch.sigmoid(gate)
        silu, slope = gate * sigmoid, sigmoid * (1 + gate * (1 - sigmoid))
        product = silu * up
        single = torch.sqrt((slope * up * gate_error) ** 2 + (slope * up * gate * roundoff) ** 2 +
                            (silu * up_error) ** 2 + 3 * (product * roundoff) ** 2 + (16 * product * 2.0 ** -24) ** 2)
        down = layer.down[expert].double()
        output, sum_error = dot(down, product)
        squares += weight ** 2 * (LAMBDA ** 2 * ((down ** 2) @ single ** 2 + 2 * (output * roundoff) ** 2) +
                                  sum_error ** 2)
        value += weight * output
        size += (weight * output).abs()
    # Partial sums over experts in the layer's type.
    squares += (1 + batch.ids.shape[1]) * (LAMBDA * size * roundoff) ** 2
    return value, torch.sqrt(squares)


def count_wrong(layer, batch, output, most_tokens):
    num_tokens = len(batch.hidden)
    count = min(num_tokens, most_tokens)
    wrong = 0
    for index in range(count):
        token = index * num_tokens // count
        value, tolerance = reference_row(layer, batch, token)
        wrong += int((~((output[token].double() - value).abs() <= tolerance)).sum())  # NaN is wrong
    return wrong, count * batch.hidden.shape[1]


# ---- Timing


class Timer:
    def __init__(self, device, seconds):
        self.is_cuda = device.type == "cuda"
        self.seconds = seconds

    def run_us(self, work):
        if not self.is_cuda:
            start = time.perf_counter()
            work()
            return (time.perf_counter() - start) * 1e6
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3

    def captured(self, work):
        """A graph of it, or None where it cannot be recorded."""
        if not self.is_cuda:
            return None
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                work()
        except Exception as error:  # a foreign implementation may synchronise, and raises what it likes
            torch.cuda.synchronize()
            log(f"  not captured: {str(error).splitlines()[0]}")
            return None
        return graph

    def time(self, calls):
        """Microseconds of one call: samples, and whether a graph ran."""
        def one_pass():
            for call in calls:
                call()

        self.run_us(one_pass)  # compiles and tunes
        passes = min(max(math.ceil(SHORTEST_SAMPLE_US / self.run_us(one_pass)), 1), 64)

        def sample():
            for _ in range(passes):
                one_pass()

        graph = self.captured(sample)
        work = sample if graph is None else graph.replay
        self.run_us(work)
        samples = []
        end = time.monotonic() + self.seconds
        while len(samples) < FEWEST_SAMPLES or time.monotonic() < end:
            samples.append(self.run_us(work) / (passes * len(calls)))
        return sorted(samples), graph is not None


def at(samples, part):
    return float(f"{samples[round(part * (len(samples) - 1))]:.4g}")


# ---- Rows


def make_layers(shape, count, device, dtype, seed):
    experts, _, hidden, inner = shape
    generator = torch.Generator(device).manual_seed(seed)
    layers = []
    for _ in range(count):
        if layers:
            layers.append(Layer(layers[0].gate_up.clone(), layers[0].down.clone()))
            continue
        gate_up = torch.empty(experts, 2 * inner, hidden, device=device, dtype=dtype)
        down = torch.empty(experts, hidden, inner, device=device, dtype=dtype)
        for tensor in (gate_up, down):
            for matrix in tensor:  # of one expert at a time: no large temporaries
                matrix.normal_(0, hidden ** -0.5, generator=generator)
        layers.append(Layer(gate_up, down))
    return layers


def make_batch(shape, routing, device, dtype, seed):
    ids = torch.tensor(routing, device=device)
    generator = torch.Generator(device).manual_seed(seed + 1)
    hidden = torch.empty(len(routing), shape[2], device=device, dtype=dtype).normal_(generator=generator)
    # As those of aurora-bench: softmax of 1 - rank / top-k.
    logits = 1 - torch.arange(shape[1], device=device, dtype=torch.float32) / shape[1]
    return Batch(hidden, ids, torch.softmax(logits, 0).expand(len(routing), -1).contiguous())


def touched_bytes(shape, routing, element):
    """As aurora-bench counts what a run reads and writes."""
    experts_hit = len({expert for token in routing for expert in token})
    _, top_k, hidden, inner = shape
    return element * (3 * experts_hit * hidden * inner + len(routing) * (2 * hidden + 2 * top_k * (hidden + inner)))


def measure(implementation, name, layers, batches, timer, arguments, stamp):
    prepared = [implementation.prepare(layer, batch) for layer, batch in zip(layers, batches)]
    with torch.no_grad():
        run, combined = prepared[0]
        wrong, checked = count_wrong(layers[0], batches[0], combined(run()), arguments.check_tokens)
        samples, is_graph = timer.time([run for run, _ in prepared])
    row = {"suite": "layer", "row": f"{name} {implementation.name}", "median": at(samples, 0.5),
           "p10": at(samples, 0.1), "p90": at(samples, 0.9), "copies": len(layers),
           "graph": "yes" if is_graph else "no", "dtype": arguments.dtype, "checked": checked, "wrong": wrong,
           "stamp": stamp}
    if layers[0].down.is_cuda:
        row["device"] = torch.cuda.get_device_name(layers[0].down.device)
    print(json.dumps(row), flush=True)
    log(f"{row['row']}: {row['median']} us, {wrong} wrong")


def measure_shape(name, shape, implementations, timer, arguments, stamp):
    """The number of rows that failed."""
    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    layers = []
    num_failed = 0
    for tokens in arguments.tokens:
        routing, routing_name = None, "uniform"
        if arguments.routing != "uniform":
            routing = replayed_routing(arguments.routing, shape[0], shape[1], tokens)
        if routing is not None:
            routing_name = arguments.routing.stem
        else:
            routing = uniform_routing(shape[0], shape[1], tokens, arguments.seed)
        touched = touched_bytes(shape, routing, torch.tensor([], dtype=dtype).element_size())
        copies = min(max(math.ceil(arguments.rotate_bytes / touched), 1), MOST_COPIES)
        if len(layers) < copies:
            layers.clear()
            layers = make_layers(shape, copies, device, dtype, arguments.seed)
        batches = [make_batch(shape, routing, device, dtype, arguments.seed + 2 * copy) for copy in range(copies)]
        for implementation in implementations:
            if tokens > (getattr(implementation, "most_tokens", None) or tokens):
                continue
            row = f"{name} {tokens} {routing_name}"
            try:
                measure(implementation, row, layers[:copies], batches, timer, arguments, stamp)
            except Exception as error:  # out of memory, or what a foreign implementation cannot do
                log(f"{row} {implementation.name}: FAILED: {type(error).__name__}: {error}")
                num_failed += 1
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return num_failed


def make_stamp(arguments):
    stamp = {"torch": torch.__version__, "seed": arguments.seed}
    for package in ("transformers", "triton", "vllm", "sglang"):
        if package in sys.modules:
            stamp[package] = getattr(sys.modules[package], "__version__", "?")
    if arguments.device.startswith("cuda"):
        stamp["cuda"] = torch.version.cuda
    return stamp


def parse_shape(text):
    if text in SHAPES:
        return SHAPES[text]
    try:
        shape = tuple(int(number) for number in text.split("x"))
    except ValueError:
        shape = ()
    if len(shape) != 4 or min(shape) < 1 or shape[1] > shape[0]:
        sys.exit(f"layer_peers.py: --shape {text}: {', '.join(SHAPES)}, all, or experts, top-k, hidden and inner as in "
                 "8x2x64x32")
    return shape


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="all", help="names with commas between")
    parser.add_argument("--tokens", default=TOKENS, type=lambda text: [int(number) for number in text.split(",")])
    parser.add_argument("--routing", default="uniform", type=lambda text: text if text == "uniform" else Path(text),
                        help="uniform, or a routing record for the shapes that it fits")
    parser.add_argument("--implementations", default=",".join(IMPLEMENTATIONS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--seconds", default=0.25, type=float, help="samples of a row are taken for this long")
    parser.add_argument("--rotate-bytes", default=400 << 20, type=int)
    parser.add_argument("--check-tokens", default=4, type=int)
    parser.add_argument("--seed", default=1, type=int)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    names = list(SHAPES) if arguments.shape == "all" else arguments.shape.split(",")
    shapes = {name: parse_shape(name) for name in names}
    unknown = set(arguments.implementations.split(",")) - set(IMPLEMENTATIONS)
    if unknown:
        sys.exit(f"layer_peers.py: --implementations: unknown {', '.join(sorted(unknown))}; known are "
                 f"{', '.join(IMPLEMENTATIONS)}")
    implementations = importable(arguments.implementations.split(","))
    if not implementations:
        sys.exit("layer_peers.py: none of the implementations can be imported here")
    timer = Timer(torch.device(arguments.device), arguments.seconds)
    stamp = make_stamp(arguments)
    num_failed = sum(measure_shape(name, shape, implementations, timer, arguments, stamp)
                     for name, shape in shapes.items())
    if num_failed:
        sys.exit(f"layer_peers.py: {num_failed} rows failed")


if __name__ == "__main__":
    main()

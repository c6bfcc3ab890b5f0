#!/usr/bin/env python3
"""Writes a checkpoint with random bfloat16 weights in the shape of a published model, as sharded safetensors.

    random_checkpoint.py SHAPE FOLDER [--layers N] [--seed S]

SHAPE: olmoe-1b-7b, qwen3-30b-a3b or mixtral-8x7b, models of real size; wide-2048 or wide-4096, few and small experts behind rows of
real width, for exchanges between machines that compute on CPUs.

Speed and memory depend on shapes and routing, not on what the weights say, so models of real size can be served on
machines that cannot download any. Weights are normal with deviation 1/sqrt(inputs), norms are one: activations keep
their size through all layers and a random router spreads tokens over all experts. Weights are drawn with
torch, on the GPU when there is one, or else with numpy.
"""
import argparse
import json
import math
import struct
from pathlib import Path

try:
    import torch
except ImportError:
    torch = None
    import numpy

# From the models' published config.json files.
SHAPES = {
    "olmoe-1b-7b": {
        "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "hidden_size": 2048, "num_hidden_layers": 16,
        "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 1024, "num_experts": 64,
        "num_experts_per_tok": 8, "norm_topk_prob": False, "vocab_size": 50304, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
        "attention_bias": False, "clip_qkv": None},
    "qwen3-30b-a3b": {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 2048,
        "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
        "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
        "norm_topk_prob": True, "vocab_size": 151936, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "hidden_act": "silu", "tie_word_embeddings": False, "attention_bias": False,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "use_sliding_window": False, "sliding_window": None},
    "mixtral-8x7b": {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "num_local_experts": 8,
        "num_experts_per_tok": 2, "vocab_size": 32000, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0, "hidden_act": "silu", "tie_word_embeddings": False, "sliding_window": None},
}
for width in (2048, 4096):
    SHAPES[f"wide-{width}"] = {
        **SHAPES["olmoe-1b-7b"], "hidden_size": width, "num_hidden_layers": 4, "intermediate_size": 256, "num_experts": 16,
        "num_experts_per_tok": 4, "vocab_size": 2048}
SHARD_BYTES = 4 << 30


def tensors_of(config):
    """(name, shape) of every tensor, in the order of the layers."""
    hidden, heads, kv_heads = (config[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    head = config.get("head_dim") or hidden // heads
    inner = config.get("moe_intermediate_size") or config["intermediate_size"]
    is_olmoe, is_mixtral = (config["model_type"] == name for name in ("olmoe", "mixtral"))
    block, projections = (("block_sparse_moe", ("w1", "w3", "w2")) if is_mixtral
                          else ("mlp", ("gate_proj", "up_proj", "down_proj")))
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        yield prefix + "self_attn.q_proj.weight", (heads * head, hidden)
        yield prefix + "self_attn.k_proj.weight", (kv_heads * head, hidden)
        yield prefix + "self_attn.v_proj.weight", (kv_heads * head, hidden)
        yield prefix + "self_attn.o_proj.weight", (hidden, heads * head)
        if not is_mixtral:  # OLMoE norms the whole projection, Qwen3 each head
            yield prefix + "self_attn.q_norm.weight", (heads * head if is_olmoe else head,)
            yield prefix + "self_attn.k_norm.weight", (kv_heads * head if is_olmoe else head,)
        num_experts = config["num_local_experts"] if is_mixtral else config["num_experts"]
        yield prefix + f"{block}.gate.weight", (num_experts, hidden)
        for expert in range(num_experts):
            for projection in projections:
                shape = (hidden, inner) if projection == projections[-1] else (inner, hidden)
                yield prefix + f"{block}.experts.{expert}.{projection}.weight", shape
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], hidden)


def bytes_of(shape):
    return 2 * math.prod(shape)


def shards_of(config):
    """Lists of (name, shape), each of at most SHARD_BYTES."""
    shard, size = [], 0
    for name, shape in tensors_of(config):
        if shard and size + bytes_of(shape) > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append((name, shape))
        size += bytes_of(shape)
    yield shard


class TorchDraws:
    def __init__(self, seed):
        self.generator = torch.Generator("cuda" if torch.cuda.is_available() else "cpu").manual_seed(seed)

    def draw(self, shape):
        if len(shape) == 1:
            values = torch.ones(shape)
        else:
            values = torch.randn(shape, generator=self.generator, device=self.generator.device) * shape[-1] ** -0.5
        return values.to(torch.bfloat16).cpu().view(torch.int16).numpy().tobytes()


class NumpyDraws:
    def __init__(self, seed):
        self.generator = numpy.random.default_rng(seed)

    def draw(self, shape):
        if len(shape) == 1:
            values = numpy.ones(shape, dtype=numpy.float32)
        else:
            values = self.generator.standard_normal(shape, dtype=numpy.float32) * numpy.float32(shape[-1] ** -0.5)
        bits = values.view(numpy.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()  # to nearest, ties to even


def write_shard(file, shard, draws):
    header, at = {}, 0
    for name, shape in shard:
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + bytes_of(shape)]}
        at += bytes_of(shape)
    text = json.dumps(header).encode()
    with file.open("wb") as output:
        output.write(struct.pack("<Q", len(text)) + text)
        for _, shape in shard:
            output.write(draws.draw(shape))


def write_checkpoint(folder, config, seed):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}, indent=1))
    draws = NumpyDraws(seed) if torch is None else TorchDraws(seed)
    shards = list(shards_of(config))
    places = {}
    for index, shard in enumerate(shards):
        name = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        write_shard(folder / name, shard, draws)
        places.update({tensor: name for tensor, _ in shard})
    total = sum(bytes_of(shape) for shard in shards for _, shape in shard)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": places}))
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, help="fewer layers than the model has, for a quick look")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    config = dict(SHAPES[arguments.shape])
    if arguments.layers is not None:
        if not 1 <= arguments.layers <= config["num_hidden_layers"]:
            parser.error(f"--layers must be from 1 to {config['num_hidden_layers']}")
        config["num_hidden_layers"] = arguments.layers
    total = write_checkpoint(arguments.folder, config, arguments.seed)
    print(f"{arguments.shape}, {config['num_hidden_layers']} layers: {total / 1e9:.1f} GB in {arguments.folder}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes a checkpoint with random bfloat16 weights in the shape of a published model, as sharded safetensors.

    random_checkpoint.py SHAPE FOLDER [--layers N] [--seed S]      SHAPE: olmoe-1b-7b, qwen3-30b-a3b

Speed and memory depend on shapes and routing, not on what the weights say, so models of real size can be served on
machines that cannot download any. Weights are normal with deviation 1/sqrt(inputs), norms are one: activations keep
their size through all layers and a random router spreads tokens over all experts. Needs torch; weights are drawn on
the GPU when there is one.
"""
import argparse
import json
import struct
from pathlib import Path

import torch

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
}
SHARD_BYTES = 4 << 30


def tensors_of(config):
    """(name, shape) of every tensor, in the order of the layers."""
    hidden, heads, kv_heads = (config[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    head = config.get("head_dim") or hidden // heads
    inner = config.get("moe_intermediate_size") or config["intermediate_size"]
    is_olmoe = config["model_type"] == "olmoe"
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        yield prefix + "self_attn.q_proj.weight", (heads * head, hidden)
        yield prefix + "self_attn.k_proj.weight", (kv_heads * head, hidden)
        yield prefix + "self_attn.v_proj.weight", (kv_heads * head, hidden)
        yield prefix + "self_attn.o_proj.weight", (hidden, heads * head)
        # OLMoE norms the whole projection, Qwen3 each head.
        yield prefix + "self_attn.q_norm.weight", (heads * head if is_olmoe else head,)
        yield prefix + "self_attn.k_norm.weight", (kv_heads * head if is_olmoe else head,)
        yield prefix + "mlp.gate.weight", (config["num_experts"], hidden)
        for expert in range(config["num_experts"]):
            yield prefix + f"mlp.experts.{expert}.gate_proj.weight", (inner, hidden)
            yield prefix + f"mlp.experts.{expert}.up_proj.weight", (inner, hidden)
            yield prefix + f"mlp.experts.{expert}.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], hidden)


def bytes_of(shape):
    return 2 * torch.Size(shape).numel()


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


def draw(shape, generator):
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    values = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)
    return (values * shape[-1] ** -0.5).to(torch.bfloat16).cpu()


def write_shard(file, shard, generator):
    header, at = {}, 0
    for name, shape in shard:
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + bytes_of(shape)]}
        at += bytes_of(shape)
    text = json.dumps(header).encode()
    with file.open("wb") as output:
        output.write(struct.pack("<Q", len(text)) + text)
        for _, shape in shard:
            output.write(draw(shape, generator).view(torch.int16).numpy().tobytes())


def write_checkpoint(folder, config, seed):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}, indent=1))
    generator = torch.Generator("cuda" if torch.cuda.is_available() else "cpu").manual_seed(seed)
    shards = list(shards_of(config))
    places = {}
    for index, shard in enumerate(shards):
        name = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        write_shard(folder / name, shard, generator)
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

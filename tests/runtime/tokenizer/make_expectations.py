#!/usr/bin/env python3
"""Writes expectations.json: what the PyPI package `tokenizers` makes of hard texts and of random ones.

    python3 -m venv build/venv && build/venv/bin/pip install tokenizers==0.23.3
    build/venv/bin/python tests/runtime/tokenizer/make_expectations.py

Reads corpus.json (texts chosen by hand) beside this file and the tokenizers of launch/models. What those two lack is
covered by small synthetic tokenizers, described as a base and a JSON merge patch (RFC 7386), which the file carries.
The random texts come from a fixed seed, so that a second run writes the same bytes.
"""
# requirements: tokenizers==0.23.3

import json
import pathlib
import random

import tokenizers
from tokenizers import Tokenizer

PINNED = "0.23.3"
SEED = 20240917
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
MARK = "\u2581"

# Code points that break tokenizers: one list per kind of trouble.
TROUBLE = [
    list("abcdefghijklmnopqrstuvwxyz"), list("ETAOIN"), list("0123456789"), list(" "), list(" "), list("\t\n\r"),
    list(".,;:!?-_/\\'\"()[]{}<>|@#$%&*+=~`^"),
    ["'s", "'T", "'re", "'\u017f", "'ll", "\u2019s", "don't", "I'M"],
    ["\u0301", "\u0308", "\u0327", "\u0323", "\u0300", "\u20dd", "\u0345", "\u093f", "\u0e34"],
    ["e\u0301", "\u00e9", "o\u0302\u0323", "\u1ed9", "\u212b", "\u2126", "\ufb01", "\ufb03", "\u1e9b\u0323"],
    ["\u4e2d", "\u6587", "\u3042", "\u30ab\u3099", "\uff21", "\uff76\uff9e", "\u3000", "\u3001", "\U00020000"],
    ["\ud55c", "\uae00", "\u1112\u1161\u11ab", "\u1100", "\u1161", "\u11a8", "\uac00\u11a8"],
    ["\u0627", "\u0644", "\u0639", "\u0661", "\u0662", "\u06f3", "\u0640", "\u064b", "\u05d0", "\u05b0"],
    ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\u2764\ufe0f",
     "\U0001f1e9\U0001f1ea", "\u200d", "\ufe0f", "1\ufe0f\u20e3"],
    ["\u00a0", "\u2028", "\u2029", "\u2003", "\u202f", "\u205f", "\u1680", "\u0085", "\u180e", "\u200b", "\ufeff"],
    ["\x00", "\x01", "\x0b", "\x0c", "\x1b", "\x7f", "\x80", "\u00ad", "\u202e"],
    ["\u00bd", "\u2167", "\u0e53", "\u00b2", "\u2460", "\u4e09", "\U0001d7ce"],
    ["\u0430", "\u0416", "\u03b1", "\u03a9", "\u00df", "\u0130", "\u0131", "\u01c5", "\u10d0", "\u1c90"],
    ["\ue000", "\ufffd", "\ufffe", "\U0010ffff", "\U000e0001", "\u0378", "\ud7a4"],
    [MARK, "<0x41>", "<0xE4>", "\u0120", "\u010a", "\u0100"],
    ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>", "<sep>", "[x]", "word"],
]


def random_text(rng, pieces):
    kinds = rng.sample(TROUBLE, rng.randint(1, 5))
    return "".join(rng.choice(rng.choice(kinds)) for _ in range(rng.randint(1, pieces)))


def merge_patch(document, patch):
    if not isinstance(patch, dict):
        return patch
    merged = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


# ---- Synthetic models ----------------------------------------------------------------------------------------------

def train(words, num_merges):
    """Plain BPE over lists of symbols; ties go to the first pair in order of code points."""
    words = [list(word) for word in words]
    merges = []
    for _ in range(num_merges):
        counts = {}
        for word in words:
            for pair in zip(word, word[1:]):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        for k, word in enumerate(words):
            merged, i = [], 0
            while i < len(word):
                if tuple(word[i:i + 2]) == best:
                    merged.append(word[i] + word[i + 1])
                    i += 2
                else:
                    merged.append(word[i])
                    i += 1
            words[k] = merged
    return merges


def model(first_tokens, symbols, merges, **options):
    vocab = {}
    for token in first_tokens + sorted(symbols) + [a + b for a, b in merges]:
        vocab.setdefault(token, len(vocab))
    return {"type": "BPE", "vocab": vocab, "merges": merges, **options}


def added(token_id, content, **flags):
    names = ["single_word", "lstrip", "rstrip", "normalized", "special"]
    return {"id": token_id, "content": content, **{name: flags.get(name, False) for name in names}}


def byte_alphabet():
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in own]
    return {byte: chr(byte) for byte in own} | {byte: chr(256 + k) for k, byte in enumerate(others)}


def words_of(corpus):
    return [word for text in corpus for word in text.split()]


def metaspace_base(corpus):
    """Published Mixtral files: byte fallback, Metaspace, merges spelt "a b"."""
    special = ["<unk>", "<s>", "</s>"]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    merges = train([MARK + word for word in words_of(corpus) if word.isascii()], 300)
    symbols = {c for a, b in merges for c in a + b} | set("abcdefghijklmnopqrstuvwxyz") | {MARK, "\u00e9", "\u4e2d"}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(k, token, special=True) for k, token in enumerate(special)],
        "pre_tokenizer": {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": model(special + byte_tokens, symbols, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
        | {"merges": [f"{a} {b}" for a, b in merges]},
    }


def neox_base(corpus):
    """GPT-NeoX and OLMoE: ByteLevel with GPT-2's expression, runs of spaces as added tokens, merges as pairs."""
    alphabet = byte_alphabet()
    merges = train(["".join(alphabet[b] for b in (" " + word).encode()) for word in words_of(corpus)], 300)
    base = model(["<|endoftext|>", "<|padding|>"], set(alphabet.values()), merges, unk_token=None)
    size = len(base["vocab"])
    spaces = [added(size + k, " " * (24 - k), normalized=True) for k in range(23)]
    return {
        "version": "1.0",
        "added_tokens": [added(0, "<|endoftext|>", special=True), added(1, "<|padding|>", special=True), *spaces],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "post_processor": {"type": "Sequence", "processors": [
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
            {"type": "TemplateProcessing",
             "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "end", "type_id": 0}}],
             "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
             "special_tokens": {"end": {"id": "end", "ids": [0, 1], "tokens": ["<|endoftext|>", "<|padding|>"]}}}]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": base,
    }


DENSE_ALPHABET = "ab1.- \n\u00e9\u4e2d" + MARK


def dense_base(_):
    """Every pair of a small alphabet merges, so that every cut of the text shows in the ids."""
    rng = random.Random(SEED + 1)
    pairs = [(a, b) for a in DENSE_ALPHABET for b in DENSE_ALPHABET]
    rng.shuffle(pairs)
    doubles = [(a + b, c + d) for (a, b), (c, d) in zip(pairs, rng.sample(pairs, len(pairs)))]
    return {
        "version": "1.0", "added_tokens": [added(0, "<unk>", special=True)],
        "model": model(["<unk>"], set(DENSE_ALPHABET), pairs + doubles, unk_token="<unk>"),
    }


def split(pattern, behavior, invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def sequence(name, *steps):
    return {"type": "Sequence", name: list(steps)}


BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]

EXPRESSIONS = {
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
             r"|\s+(?!\S)|\s+",
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
              r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re)?"
             r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "deepseek": "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
                "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "cjk": "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+|\\p{Han}|\\p{^L}",
    "whitespace": r"[^\S\r\n]+|\s{2}",
    "words": r"\b\w+\b|\W",
    "lines": r"^.+$",
    "any": r"(?m:a.b)|(?-i:x)",
    "counts": r"a{,2}b|-{2,}|\{|1{2}",
    "escapes": r"\x{e9}|\u4e2d|\x2D|\v|\f|[\b\-\s-]",
    "empty": r"1*",
    "lookbehind": r"(?<=a)b|(?<!1)\.(?=\n)",
    "atomic": r"(?>a+)b|(?<name>1)-?",
    "lazy": r"a+?b??|-*+",
    "anchors": r"\Aa|b\z|\.\Z",
}


def dense_cases():
    for behavior in BEHAVIORS:
        for invert in [False, True]:
            yield f"split regex {behavior} invert={invert}", {
                "pre_tokenizer": split({"Regex": r"-+|1(?=\.)"}, behavior, invert)}
        yield f"split string {behavior}", {"pre_tokenizer": split({"String": ".-"}, behavior)}
    for name, expression in EXPRESSIONS.items():
        yield f"expression {name}", {"pre_tokenizer": split({"Regex": expression}, "Isolated")}
    for individual in [False, True]:
        yield f"digits individual={individual}", {
            "pre_tokenizer": {"type": "Digits", "individual_digits": individual}}
    for scheme in ["always", "first", "never"]:
        for cut in [False, True]:
            metaspace = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": cut}
            yield f"metaspace {scheme} split={cut}", {
                "pre_tokenizer": metaspace, "decoder": metaspace, "added_tokens": [added(0, "<unk>")]}
            yield f"metaspace {scheme} split={cut} behind others", {
                "normalizer": sequence("normalizers", {"type": "Prepend", "prepend": "ab"},
                                       {"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}),
                "pre_tokenizer": sequence("pretokenizers", split({"String": "b"}, "MergedWithPrevious"), metaspace)}
            yield f"metaspace {scheme} split={cut} behind strip", {
                "normalizer": {"type": "Strip", "strip_left": True, "strip_right": False}, "pre_tokenizer": metaspace}
    for replaced in [r"-+|\s+", "b."]:
        yield f"metaspace first behind replace {replaced}", {
            "normalizer": {"type": "Replace", "pattern": {"Regex": replaced}, "content": "1."},
            "pre_tokenizer": {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": True}}
    yield "strip both", {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}}
    yield "strip right", {"normalizer": {"type": "Strip", "strip_left": False, "strip_right": True}}
    yield "replace with nothing", {"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": ""}}
    yield "replace empty matches", {"normalizer": {"type": "Replace", "pattern": {"Regex": "1*"}, "content": "-"}}
    yield "nfkc", {"normalizer": sequence("normalizers", {"type": "NFKC"})}
    yield "fused unknowns", {"model": {"fuse_unk": True}}
    yield "dropped unknowns", {"model": {"unk_token": None}}
    yield "whole words", {"model": {"ignore_merges": True}, "pre_tokenizer": split({"String": "-"}, "Isolated")}
    yield "empty sequences", {
        "normalizer": sequence("normalizers"), "pre_tokenizer": sequence("pretokenizers"),
        "decoder": sequence("decoders"), "post_processor": sequence("processors")}
    yield from added_token_cases()
    yield from decoder_cases()


def added_token_cases():
    vocab = dense_base(None)["model"]["vocab"]

    def tokens(*flags):
        contents = ["a-", "a-b", " x ", "\u00e9\u00e9", "1.x"]  # the first and the fourth are in the vocabulary
        new = [content for content in contents if content not in vocab]
        ids = {content: vocab[content] if content in vocab else len(vocab) + new.index(content) for content in contents}
        return {"added_tokens": [added(0, "<unk>", special=True)] + [
            added(ids[content], content, **{flag: True for flag in flags}) for content in contents]}

    for flags in [(), ("special",), ("single_word",), ("lstrip",), ("rstrip",), ("lstrip", "rstrip"),
                  ("normalized",), ("normalized", "single_word", "rstrip"), ("lstrip", "special", "single_word")]:
        yield "added tokens " + " ".join(flags), tokens(*flags)
        yield "added tokens behind a normalizer " + " ".join(flags), tokens(*flags) | {
            "normalizer": sequence("normalizers", {"type": "Prepend", "prepend": "a"},
                                   {"type": "Replace", "pattern": {"String": "-"}, "content": ".."})}


def decoder_cases():
    replace = {"type": "Replace", "pattern": {"Regex": "[1-]+b?"}, "content": "\u00e9"}
    strip = {"type": "Strip", "content": "a", "start": 2, "stop": 0}
    literal = {"type": "Replace", "pattern": {"String": "ab"}, "content": "BA"}
    yield "decoder replace regex", {"decoder": replace}
    yield "decoder replace literal", {"decoder": literal}
    yield "decoder fuse and replace regex", {"decoder": sequence("decoders", {"type": "Fuse"}, replace)}
    yield "decoder fuse and replace literal", {"decoder": sequence("decoders", {"type": "Fuse"}, literal)}
    yield "decoder strip", {"decoder": strip}
    yield "decoder fuse and strip", {"decoder": sequence("decoders", {"type": "Fuse"}, strip)}
    yield "decoder fuse and strip end", {"decoder": sequence(
        "decoders", {"type": "Fuse"}, {"type": "Strip", "content": "a", "start": 0, "stop": 1})}
    yield "decoder byte level", {"decoder": sequence(
        "decoders", {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}, literal)}


def metaspace_cases():
    always = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}
    yield "mixtral with split and metaspace decoder", {"pre_tokenizer": always, "decoder": always}
    yield "mixtral without decoder", {"decoder": None}
    yield "mixtral with bytes alone", {"decoder": {"type": "ByteFallback"}, "model": {"fuse_unk": False}}
    yield "mixtral legacy metaspace", {
        "pre_tokenizer": {"type": "Metaspace", "replacement": MARK, "add_prefix_space": True, "prepend_scheme": "always"}}


def neox_cases():
    yield "neox with prefix space", {"pre_tokenizer": {"add_prefix_space": True}}
    yield "neox with digits", {"pre_tokenizer": merge_patch({}, sequence(
        "pretokenizers", {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}))}


# ---- What the package makes of them --------------------------------------------------------------------------------

def decodes(tokenizer, rng, count):
    size = tokenizer.get_vocab_size()
    byte_ids = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256)]
    groups = [range(size), range(min(size, 300)), [i for i in byte_ids if i is not None] or range(size)]
    rows = []
    for _ in range(count):
        ids = []
        while not ids or rng.random() < 0.85:
            if rng.random() < 0.03:
                ids.append(size + rng.randint(0, 5))
            elif rng.random() < 0.2:
                ids += tokenizer.encode(random_text(rng, 3), add_special_tokens=False).ids
            else:
                ids.append(rng.choice(rng.choice(groups)))
        if all(i == 0 or i >= size for i in ids):
            continue  # the package panics when Strip meets an empty text
        rows.append([ids, tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=False)])
    return rows


def expectations(entry, document, corpus, texts, rng, num_decodes):
    tokenizer = Tokenizer.from_str(json.dumps(document))
    entry["corpus_ids"] = [tokenizer.encode(text, add_special_tokens=False).ids for text in corpus]
    entry["corpus_special_ids"] = [tokenizer.encode(text).ids for text in corpus[:16]]
    entry["texts"] = texts
    entry["ids"] = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    entry["decodes"] = [[ids, tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=False)]
                        for ids in entry["corpus_ids"] if 0 < len(ids) < 100 and num_decodes >= 100]
    entry["decodes"] += decodes(tokenizer, rng, num_decodes)
    return entry


def dense_text(rng, longest=24):
    alphabet = list(DENSE_ALPHABET) + ["a", "b", "-", " "] * 2 + ["x", "\u00e9\u00e9", " x ", "\t", "\r", "'s", "5", "\u00bd"]
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(1, longest)))


def main():
    if tokenizers.__version__ != PINNED:
        raise SystemExit(f"tokenizers {PINNED} is pinned, this is {tokenizers.__version__}")
    corpus = json.loads((HERE / "corpus.json").read_text())
    rng = random.Random(SEED)
    bases = {"metaspace": metaspace_base(corpus), "neox": neox_base(corpus), "dense": dense_base(corpus)}
    entries = []
    for name in ["tiny-mixtral", "tiny-qwen3-moe"]:
        path = f"launch/models/{name}/tokenizer.json"
        document = json.loads((ROOT / path).read_text())
        texts = [random_text(rng, 24) for _ in range(500)]
        entries.append(expectations({"name": name, "file": path}, document, corpus, texts, rng, 200))
    for base, cases in [("metaspace", metaspace_cases()), ("neox", neox_cases())]:
        for name, patch in [(base, {}), *cases]:
            texts = [random_text(rng, 20) for _ in range(150)]
            entry = {"name": name, "base": base, "patch": patch}
            entries.append(expectations(entry, merge_patch(bases[base], patch), corpus if not patch else [], texts, rng,
                                        100 if not patch else 40))
    for name, patch in [("dense", {}), *dense_cases()]:
        texts = [dense_text(rng) for _ in range(22)] + [random_text(rng, 16) for _ in range(9)] + [dense_text(rng, 180)]
        entry = {"name": name, "base": "dense", "patch": patch}
        num_decodes = 30 if "decoder" in patch or not patch else 3
        entries.append(expectations(entry, merge_patch(bases["dense"], patch), [], texts, rng, num_decodes))
    document = {"package": f"tokenizers {PINNED}", "seed": SEED, "bases": bases, "tokenizers": entries}
    (HERE / "expectations.json").write_text(
        json.dumps(document, separators=(",", ":")).replace('{"name":', '\n{"name":') + "\n")


if __name__ == "__main__":
    main()

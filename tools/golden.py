#!/usr/bin/env python3
"""Makes a random gpt-oss snapshot of any shape and its golden.json, with numpy in f64.

    tools/golden.py DIR --prompts 700,9 --layers 5 --hidden 96 --heads 6 --kv-heads 2 ...

The snapshot is what Hugging Face's loader takes: bf16 tensors, experts in MXFP4. golden.json has
the form tests/data/README.md describes. It is computed from the rounded weights, so a reader of
the file must agree with it to the last rounding of its own.

Where two router logits nearly tie, bf16 activations may rightly choose the other expert, and the
row moves far. By how much experts are chosen at the rows listed and at the greedy tokens is
printed: take a seed where that is well above 0.02.
"""
import argparse
import json
import os
import struct

import numpy as np

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float64)
E2M1 = np.concatenate([E2M1, -E2M1])
ROPE = dict(rope_type="yarn", factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
            original_max_position_embeddings=4096)
THETA = 150000.0
EPS = 1e-5
LIMIT = 7.0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir")
    parser.add_argument("--prompts", default="9", help="lengths, separated by commas")
    parser.add_argument("--greedy", type=int, default=8, help="tokens that follow each prompt")
    for name, default in [("layers", 2), ("hidden", 64), ("inner", 64), ("heads", 4),
                          ("kv-heads", 2), ("head-dim", 32), ("experts", 4), ("top-k", 2),
                          ("vocab", 61), ("window", 128), ("seed", 1)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def bf16_bits(x):
    """Round to nearest, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def bf16_value(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


class Snapshot:
    """Tensors as they are written, and their values."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.stored, self.value = {}, {}

    def dense(self, name, shape, deviation, mean=0.0):
        bits = bf16_bits(mean + deviation * self.random.standard_normal(shape))
        self.stored[name] = ("BF16", bits)
        self.value[name] = bf16_value(bits)

    def experts(self, name, experts, rows, cols, deviation):
        """MXFP4: random codes, and scales around the deviation wanted."""
        codes = self.random.integers(0, 16, (experts, rows, cols // 32, 32), np.uint8)
        middle = 127 + int(np.round(np.log2(deviation / 2.6)))
        scales = self.random.integers(middle - 1, middle + 2, codes.shape[:3]).astype(np.uint8)
        self.stored[name + "_blocks"] = ("U8", codes[..., 0::2] | codes[..., 1::2] << 4)
        self.stored[name + "_scales"] = ("U8", scales)
        values = E2M1[codes] * np.exp2(scales.astype(np.float64) - 127)[..., None]
        self.value[name] = values.reshape(experts, rows, cols)

    def write(self, path):
        header, at = {}, 0
        for name, (dtype, array) in self.stored.items():
            header[name] = dict(dtype=dtype, shape=list(array.shape),
                                data_offsets=[at, at + array.nbytes])
            at += array.nbytes
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _, array in self.stored.values():
                file.write(np.ascontiguousarray(array).tobytes())


def make(a):
    s = Snapshot(a.seed)
    q_dim, kv_dim = a.heads * a.head_dim, a.kv_heads * a.head_dim
    s.dense("model.embed_tokens.weight", (a.vocab, a.hidden), 1.0)
    for layer in range(a.layers):
        p = f"model.layers.{layer}."
        for part, rows, cols in [("self_attn.q_proj", q_dim, a.hidden),
                                 ("self_attn.k_proj", kv_dim, a.hidden),
                                 ("self_attn.v_proj", kv_dim, a.hidden),
                                 ("self_attn.o_proj", a.hidden, q_dim),
                                 ("mlp.router", a.experts, a.hidden)]:
            s.dense(f"{p}{part}.weight", (rows, cols), cols**-0.5)
            s.dense(f"{p}{part}.bias", (rows,), 0.1)
        s.dense(p + "self_attn.sinks", (a.heads,), 1.0)
        s.dense(p + "input_layernorm.weight", (a.hidden,), 0.1, 1.0)
        s.dense(p + "post_attention_layernorm.weight", (a.hidden,), 0.1, 1.0)
        experts = p + "mlp.experts."
        s.experts(experts + "gate_up_proj", a.experts, 2 * a.inner, a.hidden, a.hidden**-0.5)
        s.dense(experts + "gate_up_proj_bias", (a.experts, 2 * a.inner), 0.1)
        s.experts(experts + "down_proj", a.experts, a.hidden, a.inner, a.inner**-0.5)
        s.dense(experts + "down_proj_bias", (a.experts, a.hidden), 0.1)
    s.dense("model.norm.weight", (a.hidden,), 0.1, 1.0)
    s.dense("lm_head.weight", (a.vocab, a.hidden), 3 * a.hidden**-0.5)
    return s


def config(a):
    rope = dict(ROPE, rope_theta=THETA)
    return dict(
        architectures=["GptOssForCausalLM"], model_type="gpt_oss", vocab_size=a.vocab,
        hidden_size=a.hidden, intermediate_size=a.inner, num_hidden_layers=a.layers,
        num_attention_heads=a.heads, num_key_value_heads=a.kv_heads, head_dim=a.head_dim,
        num_local_experts=a.experts, num_experts_per_tok=a.top_k, sliding_window=a.window,
        layer_types=["full_attention" if i % 2 else "sliding_attention" for i in range(a.layers)],
        max_position_embeddings=4096, rms_norm_eps=EPS, swiglu_limit=LIMIT, rope_theta=THETA,
        rope_scaling=rope, rope_parameters=rope, tie_word_embeddings=False, attention_bias=True,
        initial_context_length=4096, torch_dtype="bfloat16",
        quantization_config=dict(quant_method="mxfp4"))


def angles(a, tokens):
    """YaRN: cosines and sines `[tokens, 1, head_dim / 2]`, concentration included."""
    half = a.head_dim // 2
    inverse = THETA ** (-np.arange(half) / half)
    turns = lambda beta: half * np.log(4096 / (beta * 2 * np.pi)) / np.log(THETA)
    low, high = turns(ROPE["beta_fast"]), turns(ROPE["beta_slow"])
    ramp = np.clip((np.arange(half) - low) / max(high - low, 1e-3), 0, 1)
    angle = np.arange(tokens)[:, None] * (inverse * (1 - ramp) + inverse / ROPE["factor"] * ramp)
    scale = 0.1 * np.log(ROPE["factor"]) + 1
    return scale * np.cos(angle)[:, None], scale * np.sin(angle)[:, None]


def rotate(x, cos, sin):
    first, second = np.split(x, 2, -1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(a, w, p, x, windowed):
    tokens = len(x)
    project = lambda part: x @ w[f"{p}{part}_proj.weight"].T + w[f"{p}{part}_proj.bias"]
    heads = lambda part, count: project(part).reshape(tokens, count, a.head_dim)
    cos, sin = angles(a, tokens)
    q = rotate(heads("q", a.heads), cos, sin)
    group = a.heads // a.kv_heads
    k = np.repeat(rotate(heads("k", a.kv_heads), cos, sin), group, 1)
    v = np.repeat(heads("v", a.kv_heads), group, 1)
    behind = np.arange(tokens)[:, None] - np.arange(tokens)
    hidden = (behind < 0) | (windowed & (behind >= a.window))
    out = np.empty((tokens, a.heads, a.head_dim))
    for head in range(a.heads):
        scores = q[:, head] @ k[:, head].T / np.sqrt(a.head_dim)
        scores[hidden] = -np.inf
        sink = np.full((tokens, 1), w[p + "sinks"][head])
        out[:, head] = softmax(np.concatenate([scores, sink], 1))[:, :-1] @ v[:, head]
    return out.reshape(tokens, -1) @ w[p + "o_proj.weight"].T + w[p + "o_proj.bias"]


def mixture(a, w, p, x, margin):
    router = x @ w[p + "router.weight"].T + w[p + "router.bias"]
    order = np.argsort(-router, -1, kind="stable")
    chosen = order[:, :a.top_k]
    if a.top_k < a.experts:
        last, next_one = np.take_along_axis(router, order[:, a.top_k - 1:a.top_k + 1], -1).T
        np.minimum(margin, last - next_one, out=margin)
    weight = softmax(np.take_along_axis(router, chosen, -1))
    out = np.zeros_like(x)
    for expert in range(a.experts):
        rows, rank = np.nonzero(chosen == expert)
        part = p + "experts."
        h = x[rows] @ w[part + "gate_up_proj"][expert].T + w[part + "gate_up_proj_bias"][expert]
        gate, up = np.minimum(h[:, 0::2], LIMIT), np.clip(h[:, 1::2], -LIMIT, LIMIT)
        act = (up + 1) * gate / (1 + np.exp(-1.702 * gate))
        y = act @ w[part + "down_proj"][expert].T + w[part + "down_proj_bias"][expert]
        out[rows] += weight[rows, rank][:, None] * y
    return out


def forward(a, w, ids):
    """Logits `[tokens, vocab]`, and by how much each token chose its experts, `[tokens]`: the
    smallest distance over the layers from the last router logit taken to the next."""
    norm = lambda x, name: x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * w[name]
    x = w["model.embed_tokens.weight"][ids]
    margin = np.full(len(ids), np.inf)
    for layer in range(a.layers):
        p = f"model.layers.{layer}."
        inner = norm(x, p + "input_layernorm.weight")
        x = x + attention(a, w, p + "self_attn.", inner, layer % 2 == 0)
        x = x + mixture(a, w, p + "mlp.", norm(x, p + "post_attention_layernorm.weight"), margin)
    return norm(x, "model.norm.weight") @ w["lm_head.weight"].T, margin


def case(a, w, length, number):
    prompt = [(i * 7919 + 13 * number + 5) % a.vocab for i in range(length)]
    logits, margin = forward(a, w, np.array(prompt))
    rows = []
    for pos in sorted({0, length // 3, length // 2, length - 2, length - 1} & set(range(length))):
        top = np.argsort(-logits[pos], kind="stable")[:8]
        largest = logits[pos].max()
        rows.append(dict(pos=pos, top_ids=top.tolist(), top_logits=logits[pos][top].tolist(),
                         lse=float(largest + np.log(np.exp(logits[pos] - largest).sum())),
                         mean=float(logits[pos].mean()), std=float(logits[pos].std())))
    least = min(margin[row["pos"]] for row in rows)
    ids, greedy, gaps = list(prompt), [], []
    for step in range(a.greedy):
        if step > 0:
            logits, margin = forward(a, w, np.array(ids))
        least = min(least, margin[-1])
        second, first = np.sort(logits[-1])[-2:]
        greedy.append(int(logits[-1].argmax()))
        gaps.append(float(first - second))
        ids.append(greedy[-1])
    print(f"prompt {length}: experts chosen by at least {least:.3f}, tokens by {min(gaps):.3f}")
    return dict(prompt=prompt, rows=rows, greedy=greedy, greedy_gap=gaps)


def main():
    a = arguments()
    snapshot = make(a)
    os.makedirs(a.dir, exist_ok=True)
    lengths = [int(n) for n in a.prompts.split(",")]
    cases = [case(a, snapshot.value, n, i) for i, n in enumerate(lengths)]
    snapshot.write(os.path.join(a.dir, "model.safetensors"))
    for name, content in [("config.json", config(a)), ("golden.json", dict(cases=cases))]:
        with open(os.path.join(a.dir, name), "w") as file:
            json.dump(content, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()

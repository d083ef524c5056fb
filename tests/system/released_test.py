#!/usr/bin/python3
"""The released weights: imported from TensorFlow's checkpoints, they must compute what their ports were published to compute.

RF_RELEASED_WEIGHTS names a folder with any of the unpacked archives chinese_roformer-v2-char_L-{6_H-384_A-6, 12_H-768_A-12, 24_H-1024_A-16}
(env/fetch_weights.md). Without it the published values are not compared, and the test counts as skipped; what compares them is
tried on random weights of the same layout all the same."""

import json
import os
import random
import sys
import tempfile

import h5py
import numpy as np

from harness import SKIP, SOURCE, run, sets

sys.path.insert(0, os.path.join(SOURCE, "postprocess"))
from roformer_reader import read_checkpoint

SENTENCE = "今天[MASK]很好，我[MASK]去公园玩。"
IDS = [101, 317, 1466, 103, 2100, 1506, 7675, 2351, 103, 861, 585, 1253, 4041, 179, 102]
# Folder; the five likeliest of both masks, as the PyTorch port's page gives them.
RELEASED = {
    "chinese_roformer-v2-char_L-6_H-384_A-6": ("的 ， 是 很 也", "要 会 是 想 在"),
    "chinese_roformer-v2-char_L-12_H-768_A-12": ("我 天 晴 园 玩", "想 要 会 就 带"),
    "chinese_roformer-v2-char_L-24_H-1024_A-16": ("天 气 我 空 阳", "又 想 会 就 爱"),
}
# Paddle's port, small: output of the first layer for these ids, the first of them masked; rows and channels 1 to 3.
PADDLE_IDS = [0, 345, 232, 328, 740, 140, 1695, 69, 6078, 1588, 2]
PADDLE = np.array([[0.75068903, 0.13977423, 0.07971212], [0.08614583, 0.21606587, -1.08551681], [0.98021960, -0.85751861, -1.42552316]])


def forward(model, weights, ids, hidden=(), layers=None):
    """Last hidden state by numpy in double precision. `hidden`: positions that no other may see."""
    c, heads = model["hidden_size"], model["num_attention_heads"]
    d, n = c // heads, len(ids)

    def norm(x):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + model["norm_epsilon"])

    angles = np.arange(n)[:, None] * 10000.0 ** (-2 * np.arange(d // 2) / d)

    def turn(x):
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * np.cos(angles) - x[..., 1::2] * np.sin(angles)
        out[..., 1::2] = x[..., 1::2] * np.cos(angles) + x[..., 0::2] * np.sin(angles)
        return out

    x = norm(weights["embedding/word"][ids].astype(np.float64) + weights["embedding/segment"][0])
    for i in range(model["num_hidden_layers"] if layers is None else layers):
        w = {name: weights[f"layer_{i}/{name}"].astype(np.float64) for name in ("attention/qkv", "attention/output", "feed_forward/up", "feed_forward/down")}
        q, k, v = (np.einsum("nc,hdc->hnd", x, part) for part in w["attention/qkv"])
        scores = turn(q) @ turn(k).transpose(0, 2, 1) / np.sqrt(d)
        scores[:, :, list(hidden)] = -np.inf
        p = np.exp(scores - scores.max(-1, keepdims=True))
        context = (p / p.sum(-1, keepdims=True)) @ v
        x = norm(x + np.einsum("hnd,chd->nc", context, w["attention/output"]))
        x = norm(x + np.maximum(x @ w["feed_forward/up"].T, 0) @ w["feed_forward/down"].T)
    return x


def first_layer(imported):
    model, weights, _ = read_checkpoint(imported)
    return forward(model, weights, PADDLE_IDS, hidden=(0,), layers=1)[1:4, 1:4]


def candidates(imported):
    """The five likeliest of each mask."""
    lines = run("fill-mask", "--checkpoint", imported, "--top", 5, "--dtype", "f32", stdin=f"{SENTENCE}\n".encode()).splitlines()
    at = lines.index(SENTENCE)
    return [[item.split(" ")[0] for item in line.strip("\t").split("\t")] for line in lines[at + 1:at + 3]]


def import_weights(folder, out):
    run("convert", "--from", "tf", "--to", "rf", folder, out)
    ids = run("tokenize", "--vocab", os.path.join(folder, "vocab.txt"), stdin="今天很好，我去公园玩。\n".encode()).split()
    assert [int(i) for i in ids[-13:]] == [i for i in IDS if i != 103], ids
    return out


def check_released(folder, expected):
    imported = import_weights(folder, "released")
    for found, wanted in zip(candidates(imported), expected):
        assert found == wanted.split(), f"{folder}: fill-mask says {found}, published is {wanted}"
    if "L-6_" in folder:
        worst = np.abs(first_layer(imported) - PADDLE).max()
        assert worst < 1e-4, f"{folder}: the first layer differs by {worst}"


def write_random(folder):
    """A model of the released layout: TensorFlow's checkpoint, bert_config.json, a vocabulary of 12000 with the released ids of the sentence."""
    tokens = [f"[unused{i}]" for i in range(12000)]
    for i, token in zip(IDS, ["[CLS]", "今", "天", "[MASK]", "很", "好", "，", "我", "[MASK]", "去", "公", "园", "玩", "。", "[SEP]"]):
        tokens[i] = token
    tokens[0], tokens[100] = "[PAD]", "[UNK]"
    with open("vocab12000.txt", "w", encoding="utf-8") as out:
        out.write("\n".join(tokens) + "\n")
    letters = [token for token in tokens if len(token) == 1]
    with open("text12000.txt", "w", encoding="utf-8") as out:
        for _ in range(200):
            out.write("".join(random.Random(_).choices(letters, k=20)) + "\n")
    run("build-corpus", *sets(text="text12000.txt", vocab="vocab12000.txt", output="corpus12000", segmenter__name="none"))
    run("pretrain", *sets(model__hidden_size=64, model__num_attention_heads=2, model__num_hidden_layers=2, model__intermediate_size=128, model__vocab_size=12000,
                          model__residual_mode="plain", corpus="corpus12000", vocab="vocab12000.txt", output="random", steps=0, batch__sequences=4, batch__lanes=1,
                          batch__max_length=32, dtype="f32", parallel__threads=1))
    run("convert", "--from", "rf", "--to", "tf", "random", folder)


def check_plumbing():
    folder = "chinese_roformer-v2-char_L-2_H-64_A-2"
    write_random(folder)
    assert {"bert_config.json", "bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.index", "checkpoint", "vocab.txt"} <= set(os.listdir(folder))
    imported = import_weights(folder, "imported")
    assert first_layer(imported).shape == (3, 3) and np.isfinite(first_layer(imported)).all()
    # The numpy model that judges the first layer is ours, and the order of candidates is that of its logits.
    model, weights, vocab = read_checkpoint(imported)
    logits = forward(model, weights, IDS) @ weights["embedding/word"].T.astype(np.float64)
    expected = [[vocab[i] for i in np.argsort(-logits[row], kind="stable")[:5]] for row in (3, 8)]
    assert candidates(imported) == expected, (candidates(imported), expected)
    ids = [i for i in IDS if i != 103]
    run("encode", "--checkpoint", imported, "--out", "hidden.h5", "--dtype", "f32", stdin="今天很好，我去公园玩。\n".encode())
    with h5py.File("hidden.h5", "r") as file:
        worst = np.abs(file["hidden"][:] - forward(model, weights, ids)).max()
    assert worst < 1e-5, worst
    # What is not what was published is told apart.
    try:
        check_released(folder, ("的 ， 是 很 也", "要 会 是 想 在"))
    except AssertionError as error:
        assert "fill-mask says" in str(error), error
    else:
        raise AssertionError("random weights passed for released ones")
    with open(os.path.join(folder, "bert_config.json"), encoding="utf-8") as file:
        assert json.load(file)["vocab_size"] == 12000


def main():
    given = os.environ.get("RF_RELEASED_WEIGHTS", "")
    given = given and os.path.abspath(given)
    found = [name for name in RELEASED if given and os.path.isdir(os.path.join(given, name))]
    assert not given or found, f"RF_RELEASED_WEIGHTS={given}: holds none of {', '.join(RELEASED)}"
    with tempfile.TemporaryDirectory(prefix="roformer-test-") as folder:
        os.chdir(folder)
        check_plumbing()
        print("ok   the comparison, on random weights of the released layout", flush=True)
        for name in found:
            os.chdir(tempfile.mkdtemp(dir=folder))
            check_released(os.path.abspath(os.path.join(given, name)), RELEASED[name])
            print(f"ok   {name}", flush=True)
        os.chdir("/")
    if not given:
        print("skipped: RF_RELEASED_WEIGHTS names no folder with the released weights (env/fetch_weights.md tells where they are and how to lay them out)")
        sys.exit(SKIP)


if __name__ == "__main__":
    main()

"""What both peers share: a small model of random weights with several heads, its vocabulary and sentences, and the comparison of outputs.
Needs numpy and h5py only."""

import json
import os

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPE = {"hidden_act": "relu", "hidden_size": 32, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "intermediate_size": 48,
         "num_attention_heads": 2, "num_hidden_layers": 2, "type_vocab_size": 2, "vocab_size": 120}
EPSILON = 1e-12
HIDDEN_LIMIT = LOGIT_LIMIT = 1e-4


def sentences():
    with open(os.path.join(HERE, "sentences.txt"), encoding="utf-8") as file:
        return file.read().splitlines()


def vocabulary():
    """The five special tokens, then the commonest characters of the sentences."""
    counts = {}
    for character in "".join(sentences()).lower():
        counts[character] = counts.get(character, 0) + 1
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + sorted(counts, key=lambda c: (-counts[c], c))
    return tokens[:SHAPE["vocab_size"]]


def names():
    """Name and shape of every weight as TensorFlow has them (inputs outermost)."""
    c, f = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    out = [("bert/embeddings/word_embeddings", (SHAPE["vocab_size"], c)), ("bert/embeddings/token_type_embeddings", (2, c))]
    for i in range(SHAPE["num_hidden_layers"]):
        layer = f"bert/encoder/layer_{i}/"
        out += [(layer + f"attention/self/{x}/kernel", (c, c)) for x in ("query", "key", "value")]
        out += [(layer + "attention/output/dense/kernel", (c, c)), (layer + "intermediate/dense/kernel", (c, f)), (layer + "output/dense/kernel", (f, c))]
    return out


def weights():
    """Numbers of few bits; queries and keys large enough that attention is not flat."""
    random, out = np.random.RandomState(20220321), {}
    for name, shape in names():
        fan = shape[1] if "embeddings" in name else shape[0]
        w = random.standard_normal(shape) / np.sqrt(fan) * (2 if "query" in name or "key" in name else 1)
        out[name] = (np.round(w * 1024) / 1024).astype(np.float32)
    return out


def write_model(folder, config_name):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8") as file:
        file.write("\n".join(vocabulary()) + "\n")
    if config_name:
        with open(os.path.join(folder, config_name), "w", encoding="utf-8") as file:
            json.dump(SHAPE, file, indent=2)


def compare(what, ours, theirs, limit):
    """Largest difference; an AssertionError above the limit."""
    assert ours.shape == theirs.shape, (what, ours.shape, theirs.shape)
    worst = float(np.abs(ours - theirs).max())
    print(f"{what}: largest difference {worst:.2e} (limit {limit:.0e}) over {ours.shape[0]} tokens", flush=True)
    assert np.isfinite(theirs).all() and worst <= limit, f"{what}: {worst} is more than {limit}"

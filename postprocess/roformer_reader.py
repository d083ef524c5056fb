#!/usr/bin/env python3
"""Reads a checkpoint of roformer into numpy or torch; needs h5py alone (and torch for `state_dict`).

    from roformer_reader import read_checkpoint, state_dict
    model, weights, vocab = read_checkpoint("runs/tiny/pretrain/checkpoints/step-00001000")
    weights["layer_0/attention/qkv"].shape       # (3, H, D, C): query, key, value; every matrix maps its last axis to the others

In short, without this file:

    with h5py.File("step-00001000/checkpoint.h5") as file:
        word = file["embedding/word"][:]
"""

import json
import os

import h5py


def read_checkpoint(path, optimizer=False):
    """(model, weights, vocab): the model's shape as a dictionary, every logical tensor by its name as a numpy array, the vocabulary as a list of
    tokens. `path`: a folder step-N, or the output folder of a run, whose newest is taken. `optimizer`: both moments too."""
    if not os.path.exists(os.path.join(path, "checkpoint.h5")):
        folder = os.path.join(path, "checkpoints") if os.path.isdir(os.path.join(path, "checkpoints")) else path
        steps = sorted(name for name in os.listdir(folder) if name.startswith("step-") and name[5:].isdigit())
        if not steps:
            raise FileNotFoundError(f"{path}: neither a checkpoint nor a folder with one")
        path = os.path.join(folder, steps[-1])
    weights = {}
    with h5py.File(os.path.join(path, "checkpoint.h5"), "r") as file:
        def visit(name, item):
            if isinstance(item, h5py.Dataset) and name != "vocab" and (optimizer or not name.startswith("optimizer/")):
                weights[name] = item[:]
        file.visititems(visit)
        text = file["vocab"][0]
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        model = json.loads(file.attrs["model"])
    return model, weights, text.split("\n")[:-1] if text.endswith("\n") else text.split("\n") if text else []


def state_dict(path):
    """The encoder as a state_dict for PyTorch's `roformer` package (RoFormerForMaskedLM), of torch tensors."""
    import torch

    model, weights, _ = read_checkpoint(path)
    c = model["hidden_size"]
    out = {"roformer.embeddings.word_embeddings.weight": weights["embedding/word"],
           "roformer.embeddings.token_type_embeddings.weight": weights["embedding/segment"]}
    for i in range(model["num_hidden_layers"]):
        ours, theirs = f"layer_{i}/", f"roformer.encoder.layer.{i}."
        for slice_, name in zip(weights[ours + "attention/qkv"], ("query", "key", "value")):
            out[theirs + f"attention.self.{name}.weight"] = slice_.reshape(c, c)
        out[theirs + "attention.output.dense.weight"] = weights[ours + "attention/output"].reshape(c, c)
        out[theirs + "intermediate.dense.weight"] = weights[ours + "feed_forward/up"]
        out[theirs + "output.dense.weight"] = weights[ours + "feed_forward/down"]
    out["cls.predictions.decoder.weight"] = out["roformer.embeddings.word_embeddings.weight"]
    return {name: torch.from_numpy(array.copy()) for name, array in out.items()}


if __name__ == "__main__":
    import sys

    shape, tensors, tokens = read_checkpoint(sys.argv[1])
    print(json.dumps(shape), len(tokens), "tokens")
    for name_, tensor in tensors.items():
        print(name_, tensor.shape, tensor.dtype)

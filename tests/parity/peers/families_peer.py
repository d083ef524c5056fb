#!/usr/bin/env python3
"""BERT and RoFormer's first version in PyTorch's package `transformers` beside this program.

    families_peer.py write OUT                  a small model of each with random weights, and its outputs: OUT/{bert,roformer} and OUT/expected_{bert,roformer}.h5
    families_peer.py outputs FOLDER LINES OUT.h5   from_pretrained(FOLDER): hidden states and logits of the lines of a file
    families_peer.py compare OURS.h5 CHECKPOINT THEIRS.h5   what `encode` wrote, and logits by our head, against those

Needs torch, transformers (4.30.2 and 5.24.0 were tried), safetensors, h5py, numpy."""

import json
import os
import sys

import h5py
import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer, RoFormerConfig, RoFormerForMaskedLM

import peer

sys.path.insert(0, os.path.join(peer.HERE, "../../../postprocess"))
from roformer_reader import read_checkpoint

SENTENCES = 8  # of the fixture


def config_of(family):
    shape = {**peer.SHAPE, "hidden_act": "gelu", "layer_norm_eps": peer.EPSILON}
    if family == "bert":
        return BertConfig(**shape, max_position_embeddings=64)
    return RoFormerConfig(**shape, embedding_size=shape["hidden_size"], max_position_embeddings=64, rotary_value=False)


CLASSES = {"bert": BertForMaskedLM, "roformer": RoFormerForMaskedLM}


def outputs(model, folder, lines):
    """A line at a time, so nothing is padded."""
    tokenizer = BertTokenizer(os.path.join(folder, "vocab.txt"))
    hidden, logits = [], []
    for line in lines:
        encoded = tokenizer(line, return_tensors="pt")
        with torch.no_grad():
            out = model(input_ids=encoded["input_ids"], token_type_ids=torch.zeros_like(encoded["input_ids"]), output_hidden_states=True)
        hidden.append(out.hidden_states[-1][0].numpy())
        logits.append(out.logits[0].numpy())
    return np.concatenate(hidden), np.concatenate(logits)


def save(path, hidden, logits):
    with h5py.File(path, "w", libver="earliest") as file:
        file["hidden"], file["logits"] = hidden, logits


def write(out):
    for family, kind in CLASSES.items():
        torch.manual_seed(20220321)
        model = kind(config_of(family)).eval()
        with torch.no_grad():  # every bias and gain counts, and attention is not flat
            for name, weight in model.named_parameters():
                if "embed_positions" in name:  # the sines and cosines of RoFormer
                    continue
                spread = 0.5 if weight.dim() == 1 or "query.weight" in name or "key.weight" in name else 0.2
                weight.copy_(torch.randn_like(weight) * spread + (1 if "LayerNorm.weight" in name else 0))
        folder = os.path.join(out, family)
        peer.write_model(folder, None)
        model.save_pretrained(folder, safe_serialization=True)
        save(os.path.join(out, f"expected_{family}.h5"), *outputs(model, folder, peer.sentences()[:SENTENCES]))


def our_logits(hidden, weights):
    x = torch.from_numpy(hidden) @ torch.from_numpy(weights["mlm/dense"]).T + torch.from_numpy(weights["mlm/dense_bias"])
    x = torch.nn.functional.layer_norm(torch.nn.functional.gelu(x), x.shape[-1:], torch.from_numpy(weights["mlm/norm/gain"]), torch.from_numpy(weights["mlm/norm/bias"]), peer.EPSILON)
    return (x @ torch.from_numpy(weights["embedding/word"]).T + torch.from_numpy(weights["mlm/bias"])).numpy()


def main():
    torch.set_num_threads(1)
    if sys.argv[1] == "write":
        return write(sys.argv[2])
    if sys.argv[1] == "compare":
        _, weights, _ = read_checkpoint(sys.argv[3])
        with h5py.File(sys.argv[2], "r") as a, h5py.File(sys.argv[4], "r") as b:
            hidden = a["hidden"][:]
            peer.compare("last hidden state", hidden, b["hidden"][:], peer.HIDDEN_LIMIT)
            peer.compare("logits", our_logits(hidden, weights), b["logits"][:], peer.LOGIT_LIMIT)
        return
    folder, lines, out = sys.argv[2:5]
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        family = json.load(file)["model_type"]
    model, info = CLASSES[family].from_pretrained(folder, output_loading_info=True)
    # The table of angles is no weight, and the decoder is the table of words.
    known = {"roformer.encoder.embed_positions.weight", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "bert.embeddings.position_ids"}
    assert set(info["missing_keys"]) <= known and not info["unexpected_keys"], info
    with open(lines, encoding="utf-8") as file:
        save(out, *outputs(model.eval(), folder, file.read().splitlines()))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""PyTorch's `roformer` package beside this program.

    pytorch.py write OUT                     a small model in its three file forms, and its outputs: OUT/{hf,hf_legacy,hf_safetensors,expected_pytorch.h5}
    pytorch.py outputs FOLDER LINES OUT.h5   from_pretrained(FOLDER), hidden states and logits of the lines of a file
    pytorch.py classify FOLDER LINES OUT.h5  the same with a classifier: logits of each line

Needs torch, transformers 4.30.2, roformer 0.4.3, safetensors, h5py, numpy < 2."""

import os
import sys

import h5py
import numpy as np
import torch
from transformers import BertTokenizer

import peer
from roformer import RoFormerConfig, RoFormerForMaskedLM, RoFormerForSequenceClassification


def state():
    """Names and orientation of PyTorch."""
    out = {}
    for name, w in peer.weights().items():
        key = name.replace("bert/", "roformer/").replace("layer_", "layer/").replace("/", ".")
        key = key[:-6] + "weight" if key.endswith("kernel") else key + ".weight"
        # As the package's own converter leaves them: a transposed view, not a copy in order.
        out[key] = torch.from_numpy(w).t() if name.endswith("kernel") else torch.from_numpy(w)
    out["cls.predictions.decoder.weight"] = out["roformer.embeddings.word_embeddings.weight"]
    return out


def outputs(model, tokenizer, lines):
    """Hidden states and logits of all lines, one after another; a line at a time, so nothing is padded."""
    hidden, logits, ids = [], [], []
    for line in lines:
        encoded = tokenizer(line, return_tensors="pt")
        encoded["token_type_ids"] = torch.zeros_like(encoded["input_ids"])
        with torch.no_grad():
            out = model(**encoded, output_hidden_states=True)
        hidden.append(out.hidden_states[-1][0].numpy())
        logits.append(out.logits[0].numpy())
        ids += encoded["input_ids"][0].tolist()
    return np.concatenate(hidden), np.concatenate(logits), np.array(ids, np.int32)


def save(path, hidden, logits, ids):
    with h5py.File(path, "w", libver="earliest", track_order=False) as file:
        file["hidden"], file["logits"], file["ids"] = hidden, logits, ids


def write(out):
    shape = dict(peer.SHAPE)
    config = RoFormerConfig(**shape, embedding_size=shape["hidden_size"], max_position_embeddings=64, layer_norm_eps=peer.EPSILON, norm_type="rms_norm",
                            use_bias=False, pad_token_id=0, rotary_value=False)
    model = RoFormerForMaskedLM(config).eval()
    missing, unexpected = model.load_state_dict(state(), strict=False)
    assert not unexpected and missing == ["roformer.encoder.embed_positions.weight"], (missing, unexpected)
    for name, safe in (("hf", False), ("hf_safetensors", True)):
        model.save_pretrained(os.path.join(out, name), safe_serialization=safe)
        peer.write_model(os.path.join(out, name), None)
    legacy = os.path.join(out, "hf_legacy")
    peer.write_model(legacy, None)
    config.save_pretrained(legacy)
    torch.save(state(), os.path.join(legacy, "pytorch_model.bin"), _use_new_zipfile_serialization=False)
    tokenizer = BertTokenizer(os.path.join(legacy, "vocab.txt"))
    save(os.path.join(out, "expected_pytorch.h5"), *outputs(model, tokenizer, peer.sentences()))


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def main():
    torch.set_num_threads(1)
    if sys.argv[1] == "write":
        return write(sys.argv[2])
    folder, lines, out = sys.argv[2:5]
    tokenizer = BertTokenizer.from_pretrained(folder)
    if sys.argv[1] == "outputs":
        model, info = RoFormerForMaskedLM.from_pretrained(folder, output_loading_info=True)
        # The table of angles is no weight: the package makes it anew.
        assert set(info["missing_keys"]) <= {"roformer.encoder.embed_positions.weight", "cls.predictions.decoder.weight"} and not info["unexpected_keys"], info
        return save(out, *outputs(model.eval(), tokenizer, read_lines(lines)))
    model, info = RoFormerForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert set(info["missing_keys"]) <= {"roformer.encoder.embed_positions.weight"} and not info["unexpected_keys"], info
    model.eval()
    rows = []
    for line in read_lines(lines):
        with torch.no_grad():
            rows.append(model(**tokenizer(line, return_tensors="pt")).logits[0].numpy())
    with h5py.File(out, "w") as file:
        file["logits"] = np.stack(rows)
        file.attrs["labels"] = [model.config.id2label[i] for i in range(model.config.num_labels)]


if __name__ == "__main__":
    main()

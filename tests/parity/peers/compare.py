#!/usr/bin/env python3
"""compare.py OURS.h5 CHECKPOINT THEIRS.h5: what `encode` wrote, and logits by the table of words, against a peer's outputs. Needs h5py and numpy.
compare.py --logits HEAD CHECKPOINT OURS.h5 THEIRS.h5: logits of a classifier on the first token of each line."""

import os
import sys

import h5py
import numpy as np

import peer

sys.path.insert(0, os.path.join(peer.HERE, "../../../postprocess"))
from roformer_reader import read_checkpoint


def main():
    if sys.argv[1] == "--logits":
        head, checkpoint, ours, theirs = sys.argv[2:]
        _, weights, _ = read_checkpoint(checkpoint)
        with h5py.File(ours, "r") as a, h5py.File(theirs, "r") as b:
            first = a["hidden"][:][a["offsets"][:-1]]
            logits = first @ weights[f"task/{head}/dense"].T + weights[f"task/{head}/bias"]
            return peer.compare("logits of the classifier", logits, b["logits"][:], peer.LOGIT_LIMIT)
    ours, checkpoint, theirs = sys.argv[1:]
    _, weights, _ = read_checkpoint(checkpoint)
    with h5py.File(ours, "r") as a, h5py.File(theirs, "r") as b:
        hidden = a["hidden"][:]
        peer.compare("last hidden state", hidden, b["hidden"][:], peer.HIDDEN_LIMIT)
        peer.compare("logits", hidden @ weights["embedding/word"].T, b["logits"][:], peer.LOGIT_LIMIT)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Follows the first updates of a run in plain PyTorch (roformer_v2.py) and compares the loss curves. Run by hand:

    roformer pretrain ... --set output=runs/replay --set steps=200 --set dump_batches=200 --set dtype=f32 \\
        --set model.hidden_dropout_prob=0 --set model.attention_probs_dropout_prob=0
    build/parity/bin/python tests/parity/replay.py runs/replay

Reads <run>/run.json (model, optimizer) and <run>/replay.h5: /weights, one dataset a tensor; /batches/<n>/{tokens, cu_seqlens,
rows, targets}, an update's sequences packed, with its lr, alpha and our loss as attributes. Exit code 1 when the curves part.
"""

import argparse
import pathlib
import sys

import h5py
import numpy
import torch

import roformer_v2

ALLOWED = 2e-3  # nats: f32 sums in another order, amplified by 200 updates; what the project promises


def main():
    parser = argparse.ArgumentParser(description="the run's first updates again, in PyTorch")
    parser.add_argument("run", type=pathlib.Path, help="output folder of `roformer pretrain` with dump_batches")
    parser.add_argument("--every", type=int, default=20, help="print every so many updates")
    parser.add_argument("--dtype", choices=("f32", "f64"), default="f32",
                        help="of PyTorch; f64 beside f32 tells how far rounding alone, amplified by the updates, carries a curve")
    arguments = parser.parse_args()
    wide = torch.float64 if arguments.dtype == "f64" else torch.float32
    model, rule = roformer_v2.read_run(arguments.run, "lamb")

    with h5py.File(arguments.run / "replay.h5") as file:
        weights = {}
        file["weights"].visititems(lambda name, item: weights.update({name: torch.tensor(item[()], dtype=wide, requires_grad=True)})
                                   if isinstance(item, h5py.Dataset) else None)
        optimizer = roformer_v2.Lamb(weights, rule["beta1"], rule["beta2"], rule["epsilon"], rule["weight_decay"])
        ours, theirs = [], []
        for name in sorted(file["batches"]):
            group = file["batches"][name]
            batch = {key: torch.tensor(group[key][()], dtype=torch.int64) for key in ("tokens", "rows", "targets")}
            batch["cu_seqlens"] = group["cu_seqlens"][()].tolist()
            ours.append(group.attrs["loss"])
            theirs.append(roformer_v2.update(weights, optimizer, batch, group.attrs["lr"], group.attrs["alpha"], model["norm_epsilon"]))
            if len(ours) == 1 or len(ours) % arguments.every == 0:
                print(f"update {len(ours):4d}  alpha {group.attrs['alpha']:.3f}  roformer {ours[-1]:.6f}  PyTorch {theirs[-1]:.6f}  "
                      f"difference {ours[-1] - theirs[-1]:+.2e}", flush=True)
    if not ours:
        sys.exit(f"{arguments.run}/replay.h5 holds no batches")
    difference = numpy.abs(numpy.array(ours) - numpy.array(theirs))
    worst = int(difference.argmax())
    print(f"{len(ours)} updates, {sum(w.numel() for w in weights.values())} parameters, PyTorch {torch.__version__} {arguments.dtype}: loss {ours[0]:.4f} to "
          f"{ours[-1]:.4f}; largest difference {difference[worst]:.3g} nats at update {worst + 1} (allowed {ALLOWED:g})")
    sys.exit(0 if difference[worst] <= ALLOWED else 1)


if __name__ == "__main__":
    main()

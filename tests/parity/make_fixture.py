#!/usr/bin/env python3
"""Writes fixture.h5: what plain PyTorch (roformer_v2.py) makes of a two-layer RoFormerV2 in f64, and families.h5: the same of one layer of BERT, RoBERTa and
RoFormer v1 (families.py). parity_test.cpp compares.

    python3 -m venv build/parity && build/parity/bin/pip install torch numpy h5py
    build/parity/bin/python tests/parity/make_fixture.py            # writes both files
    build/parity/bin/python tests/parity/make_fixture.py --check    # makes them anew and compares with the committed ones

Layout: /weights, /gradients and /weights_after_<n> hold one dataset a tensor; /batch the packed batch; /states [layers+1, T, C],
/logits [M, V], /loss the forward pass at the file's alpha; /lr /alpha /losses one value for each of three LAMB updates. In families.h5 all of these stand in a
group of the family, with one update.
"""

import argparse
import pathlib
import sys

import h5py
import numpy
import torch

import families
import roformer_v2

HIDDEN, HEADS, INNER, LAYERS, EPSILON, ALPHA = 32, 2, 64, 2, 1e-12, 0.7
LR, ALPHAS = (0.5e-3, 1e-3, 1.5e-3), (0.25, 0.5, 0.75)  # rising, as in a warm-up

# `roformer tokenize` with the released vocabulary of 12000: [CLS] ... [SEP].
LINES = {
    "欢迎使用百度飞桨": "101 3223 6500 421 4179 4331 2008 7263 3055 102",
    "今天天气很好，我去公园玩。": "101 317 1466 1466 3310 2100 1506 7675 2351 861 585 1253 4041 179 102",
    "RoFormerV2在CLUE榜单上做到了第5名！": "101 8136 11719 10776 10581 10552 1278 7889 11021 3155 810 198 518 691 270 4752 126 918 7672 102",
    "好": "101 1506 102",
    "": "101 102",
    "春天来了，山上的花都开了，孩子们在河边放风筝。":
        "101 2792 1466 2921 270 7675 1810 198 4334 5430 6657 2037 270 7675 1669 1650 340 1278 3400 6487 2688 7252 4776 179 102",
}
MASK = 103


def make_batch():
    """The lines packed; every sixth inner token is predicted and, two times of three, hidden. The vocabulary is cut to the ids
    in use: `released_id` tells which each was."""
    ids, bounds, rows, targets = [], [0], [], []
    for line in LINES.values():
        sequence = [int(word) for word in line.split()]
        for t in range(1, len(sequence) - 1):
            if (len(ids) + t) % 6 == 0:
                rows.append(len(ids) + t)
                targets.append(sequence[t])
                if len(rows) % 3:
                    sequence[t] = MASK
        ids += sequence
        bounds.append(len(ids))
    released = sorted({MASK, *ids, *targets})
    number = {id: i for i, id in enumerate(released)}
    return {"tokens": [number[i] for i in ids], "cu_seqlens": bounds, "rows": rows, "targets": [number[i] for i in targets], "released_id": released}


def make_weights(vocab):
    """Normal numbers of the initialiser's standard deviations (gain 1), rounded to f32 so that both dtypes start from the same."""
    shapes = {"embedding/word": ((vocab, HIDDEN), HIDDEN), "embedding/segment": ((2, HIDDEN), HIDDEN)}
    for i in range(LAYERS):
        shapes[f"layer_{i}/attention/qkv"] = ((3, HEADS, HIDDEN // HEADS, HIDDEN), HIDDEN)
        shapes[f"layer_{i}/attention/output"] = ((HIDDEN, HEADS, HIDDEN // HEADS), HIDDEN)
        shapes[f"layer_{i}/feed_forward/up"] = ((INNER, HIDDEN), HIDDEN)
        shapes[f"layer_{i}/feed_forward/down"] = ((HIDDEN, INNER), INNER)
    draw = numpy.random.Generator(numpy.random.PCG64(20220321))
    return {name: torch.tensor((draw.standard_normal(shape) / fan**0.5).astype("f4").astype("f8"), requires_grad=True)
            for name, (shape, fan) in shapes.items()}


def make():
    """Path -> array, of the whole file."""
    batch = make_batch()
    out = {f"batch/{name}": numpy.array(values, "i4") for name, values in batch.items()}
    index = {name: torch.tensor(batch[name]) for name in ("tokens", "rows", "targets")} | {"cu_seqlens": batch["cu_seqlens"]}
    weights = make_weights(len(batch["released_id"]))

    def keep(group, tensors):
        out.update({f"{group}/{name}": tensor.detach().numpy().copy() for name, tensor in tensors.items()})

    keep("weights", weights)
    states = roformer_v2.encode(weights, index["tokens"], index["cu_seqlens"], ALPHA, EPSILON)
    logits = roformer_v2.logits_of(weights, states[-1], index["rows"])
    loss = roformer_v2.loss_of(logits, index["targets"])
    loss.backward()
    out |= {"states": torch.stack(states).detach().numpy(), "logits": logits.detach().numpy(), "loss": numpy.array([loss.item()])}
    keep("gradients", {name: weight.grad for name, weight in weights.items()})

    optimizer = roformer_v2.Lamb(weights)
    losses = []
    for step, (lr, alpha) in enumerate(zip(LR, ALPHAS), 1):
        losses.append(roformer_v2.update(weights, optimizer, index, lr, alpha, EPSILON))
        keep(f"weights_after_{step}", weights)
    out |= {"lr": numpy.array(LR), "alpha": numpy.array(ALPHAS), "losses": numpy.array(losses)}
    return out


FAMILY_LAYERS, FAMILY_POSITIONS = 1, 30


def make_families():
    """The same for one layer of every other family; the second half of each sequence is its second text."""
    batch = make_batch()
    vocab = len(batch["released_id"])
    batch["segments"] = [int(t >= (begin + end) // 2) for begin, end in zip(batch["cu_seqlens"][:-1], batch["cu_seqlens"][1:]) for t in range(begin, end)]
    out = {f"batch/{name}": numpy.array(values, "i4") for name, values in batch.items()}
    tokens, segments, rows, targets = (torch.tensor(batch[name]) for name in ("tokens", "segments", "rows", "targets"))
    for family in families.FAMILIES:
        draw = numpy.random.Generator(numpy.random.PCG64(20210420))
        weights = {name: torch.tensor((draw.standard_normal(shape) * deviation).astype("f4").astype("f8"), requires_grad=True)
                   for name, (shape, deviation) in families.shapes_of(family, vocab, HIDDEN, HEADS, INNER, FAMILY_LAYERS, FAMILY_POSITIONS).items()}
        optimizer = families.Lamb(weights)

        def keep(group, tensors):
            out.update({f"{family}/{group}/{name}": tensor.detach().numpy().copy() for name, tensor in tensors.items()})

        keep("weights", weights)
        states = families.encode(family, weights, tokens, segments, batch["cu_seqlens"], ALPHA, EPSILON)
        logits = families.logits_of(weights, states[-1], rows, EPSILON)
        loss = roformer_v2.loss_of(logits, targets)
        loss.backward()
        out |= {f"{family}/states": torch.stack(states).detach().numpy(), f"{family}/logits": logits.detach().numpy(), f"{family}/loss": numpy.array([loss.item()])}
        keep("gradients", {name: weight.grad for name, weight in weights.items()})
        optimizer.step(LR[0])
        keep("weights_after_1", weights)
    return out


ATTRIBUTES = {"hidden_size": HIDDEN, "num_attention_heads": HEADS, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
              "norm_epsilon": EPSILON, "alpha": ALPHA}


def write(path, made, attributes):
    with h5py.File(path, "w", libver=("v108", "v110")) as file:
        for name, value in attributes.items():
            file.attrs[name] = value
        for name, value in made.items():
            file.create_dataset(name, data=value, track_times=False)
    print(f"{path}: {path.stat().st_size} bytes, {len(made['batch/tokens'])} tokens, {len(made['batch/rows'])} predicted")


def check(path, made, attributes):
    """What differs from the file. f64 sums in another order (another PyTorch, another processor) differ by rounding only; a changed formula by far more."""
    bound, wrong, worst = 1e-12, [], 0.0
    with h5py.File(path) as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        wrong += [f"{name}: in one of the two only" for name in sorted(set(names) ^ set(made))]
        wrong += [f"attribute {name}: {file.attrs.get(name)}, made {value}" for name, value in attributes.items() if file.attrs.get(name) != value]
        for name in sorted(set(names) & set(made)):
            old, new = file[name][()], made[name]
            if old.shape != new.shape:
                wrong.append(f"{name}: shape {old.shape}, made {new.shape}")
                continue
            difference = numpy.linalg.norm((old - new).ravel().astype("f8")) / max(numpy.linalg.norm(new.ravel()), 1e-300)
            worst = max(worst, difference)
            if not difference <= bound:
                wrong.append(f"{name}: relative difference {difference:.3g}, allowed {bound:g}")
    if wrong:
        return [f"{path} is not what this script makes:", *(f"  {line}" for line in wrong)]
    print(f"{path}: equal, largest relative difference {worst:.2g}")
    return []


def main():
    parser = argparse.ArgumentParser(description="writes or checks the fixtures of parity_test.cpp")
    parser.add_argument("--check", action="store_true", help="make them anew and compare with the files")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fixtures = [(arguments.folder / "fixture.h5", make(), ATTRIBUTES),
                (arguments.folder / "families.h5", make_families(), ATTRIBUTES | {"num_hidden_layers": FAMILY_LAYERS, "max_position_embeddings": FAMILY_POSITIONS})]
    if not arguments.check:
        for path, made, attributes in fixtures:
            write(path, made, attributes | {"text": "\n".join(LINES)})
        return
    if wrong := [line for fixture in fixtures for line in check(*fixture)]:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()

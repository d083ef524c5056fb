#!/usr/bin/env python3
"""Follows a fine-tuning run in plain PyTorch (roformer_v2.py, supervised.py): its loss curve, then its answers. finetune.sh makes such a run.

    build/parity/bin/python tests/parity/finetune_replay.py OUTPUT TASK.json    # the task file names the labels
    build/parity/bin/python tests/parity/finetune_replay.py --self-check        # the formulas against values worked out by hand

Reads metrics.json and results.h5 of the output folder, run.json (model, optimizer) and replay.h5 of its one run. replay.h5 has the attributes
kind, task, head and head_size; /weights, one dataset a tensor, before the first update; a group update-<number> for each update, and
dev-<number> for parts of the dev set. A group has ids [T], cu_seqlens [S+1], rows [S] and
    head classify   label [E]
    head entities   cells [Q, 3] (type, start, end: tokens from the sequence's first), cell_begin [S+1], visible [S, 2]
and of an update the attributes lr, alpha and our loss. Dev groups need no labels; of entities they have characters [T, 2], which part of
its text each token covers. Their sequences stand in the order of results.h5: /predictions/<task>/{id, answer}, what the best epoch's weights
say. Exit code 1 when the curves or the answers part.
"""

import argparse
import json
import math
import pathlib
import sys

import h5py
import torch

import roformer_v2
import supervised

ALLOWED_LOSS = 2e-3     # nats; with the next line what the project promises of one epoch
ALLOWED_AGREEMENT = 0.99


def find_run(output):
    """(folder of its one run, update after which it answers)."""
    runs = sorted(path for path in (output / "runs").glob("*") if path.is_dir())
    if len(runs) != 1:
        sys.exit(f"{output}/runs holds {len(runs)} runs, expected one seed and learning rate")
    return runs[0], json.loads((output / "metrics.json").read_text())["best"]["step"]


def read_labels(path):
    labels = json.loads(path.read_text())["labels"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        sys.exit(f"{path}: labels: expected a list of names")
    return labels


class Classes:
    """[CLS] to classes; softmax, mean cross-entropy over the examples."""

    def __init__(self, weights, task, size, labels):
        self.weights, self.task, self.labels = weights, task, labels
        if weights[f"task/{task}/bias"].shape != (len(labels),):
            sys.exit(f"task/{task}/bias has shape {list(weights[f'task/{task}/bias'].shape)}, expected one for each of {len(labels)} labels")

    def logits(self, hidden, group):
        return supervised.class_logits(self.weights, self.task, hidden, torch.tensor(group["rows"][()], dtype=torch.int64))

    def loss(self, hidden, group):
        return torch.nn.functional.cross_entropy(self.logits(hidden, group), torch.tensor(group["label"][()], dtype=torch.int64))

    def answers(self, hidden, group):
        """(what is compared, probability of each label) of every example."""
        for p in self.logits(hidden, group).double().softmax(1):
            yield self.labels[p.argmax()], dict(zip(self.labels, p.tolist()))

    def read(self, answer):
        return answer["label"], dict(zip(self.labels, answer["probabilities"]))

    def summary(self, theirs):
        names = [name for name, _ in theirs]
        most = max(names.count(name) for name in set(names))
        return len(set(names)) > 1, f"{len(set(names))} of {len(self.labels)} labels are answered, the most frequent {most / len(names):.1%} of the time"


class Entities:
    """EfficientGlobalPointer; mean over the sequences of the mean over types of the multilabel cross-entropy."""

    def __init__(self, weights, task, size, labels):
        self.weights, self.task, self.labels = weights, task, labels
        expected = (2 * len(labels), 2 * size)
        if weights[f"task/{task}/bias_dense"].shape != expected:
            sys.exit(f"task/{task}/bias_dense has shape {list(weights[f'task/{task}/bias_dense'].shape)}, expected {list(expected)}")

    def sequences(self, hidden, group):
        """(bounds, scores [L, n, n], allowed [n, n]) of every sequence."""
        bounds = group["cu_seqlens"][()].tolist()
        for begin, end, visible in zip(bounds[:-1], bounds[1:], group["visible"][()].tolist()):
            yield (begin, end), supervised.pair_scores(self.weights, self.task, hidden[begin:end]), supervised.pairs_allowed(end - begin, visible)

    def loss(self, hidden, group):
        cells, begin, losses = torch.tensor(group["cells"][()], dtype=torch.int64), group["cell_begin"][()].tolist(), []
        for s, (_, scores, allowed) in enumerate(self.sequences(hidden, group)):
            right = torch.zeros_like(scores, dtype=torch.bool)
            right[tuple(cells[begin[s]:begin[s + 1]].T)] = True
            losses.append(supervised.multilabel_loss(scores, right, allowed).mean())
        return torch.stack(losses).mean()

    def answers(self, hidden, group):
        """(entities, the same with the probability of each) of every example; of a type no more than the sequence has tokens, the best."""
        characters = group["characters"][()].tolist()
        for (begin, end), scores, allowed in self.sequences(hidden, group):
            found = {}
            for label, table in zip(self.labels, scores):
                cells = torch.nonzero(allowed & (table > 0))
                scores_of = table[tuple(cells.T)].double()
                best = scores_of.argsort(descending=True, stable=True)[:end - begin]
                for (i, j), p in zip(cells[best].tolist(), scores_of[best].sigmoid().tolist()):
                    found[label, characters[begin + i][0], characters[begin + j][1]] = p
            yield set(found), found

    def read(self, answer):
        found = {(e["type"], e["start"], e["end"]): e["probability"] for e in answer["entities"]}
        return set(found), found

    def summary(self, theirs):
        count = sum(len(found) for found, _ in theirs)
        return count > 0, f"{count} entities are found in {sum(bool(found) for found, _ in theirs)} of them"


HEADS = {"classify": Classes, "entities": Entities}


class Replay:
    """The run again, from the weights of its dump."""

    def __init__(self, file, labels, model, rule, wide):
        for name, expected in (("kind", ["finetune"]), ("head", list(HEADS))):
            if file.attrs.get(name) not in expected:
                sys.exit(f"{file.filename}: attribute {name} is {file.attrs.get(name)!r}, expected one of {expected}")
        self.weights, self.groups, self.epsilon = {}, {"update": [], "dev": []}, model["norm_epsilon"]

        def keep(name, item):
            kind = name.split("/")[-1].split("-")[0]
            if isinstance(item, h5py.Dataset) and name.startswith("weights/"):
                self.weights[name.removeprefix("weights/")] = torch.tensor(item[()], dtype=wide, requires_grad=True)
            elif isinstance(item, h5py.Group) and kind in self.groups and not name.startswith("weights/"):
                self.groups[kind].append(item)
        file.visititems(keep)
        for kind, groups in self.groups.items():
            if not groups:
                sys.exit(f"{file.filename} has no group {kind}-<number>")
        self.task = file.attrs["task"]
        self.head = HEADS[file.attrs["head"]](self.weights, self.task, file.attrs["head_size"], labels)
        self.optimizer = supervised.AdaFactor(self.weights, rule["beta1"])

    def hidden(self, group, alpha):
        return roformer_v2.encode(self.weights, torch.tensor(group["ids"][()], dtype=torch.int64), group["cu_seqlens"][()].tolist(), alpha, self.epsilon)[-1]

    def update(self, group):
        """The loss before the update."""
        for weight in self.weights.values():
            weight.grad = None
        loss = self.head.loss(self.hidden(group, group.attrs["alpha"]), group)
        loss.backward()
        self.optimizer.step(group.attrs["lr"])
        return loss.item()

    @torch.no_grad()
    def answers(self, alpha):
        return [answer for group in self.groups["dev"] for answer in self.head.answers(self.hidden(group, alpha), group)]


def follow(replay, answer_after, every):
    """(largest difference of the loss curves, PyTorch's dev answers after this update)."""
    updates, differences, answers = replay.groups["update"], [], None
    if answer_after > len(updates):
        sys.exit(f"the answers are those of update {answer_after}, and replay.h5 holds {len(updates)}: expected a higher dump_batches")
    for number, group in enumerate(updates, 1):
        ours, theirs = group.attrs["loss"], replay.update(group)
        differences.append(abs(ours - theirs))
        if number == 1 or number % every == 0 or number == len(updates):
            print(f"update {number:4d}  roformer {ours:.6f}  PyTorch {theirs:.6f}  difference {ours - theirs:+.2e}", flush=True)
        if not math.isfinite(differences[-1]):
            sys.exit(f"update {number}: loss {ours}, PyTorch's {theirs}")
        if number == answer_after:
            answers = replay.answers(group.attrs["alpha"])
    worst = max(differences)
    print(f"{len(updates)} updates, {sum(w.numel() for w in replay.weights.values())} parameters, PyTorch {torch.__version__}: largest difference of "
          f"losses {worst:.3g} nats at update {differences.index(worst) + 1} (allowed {ALLOWED_LOSS:g})")
    return worst, answers


def compare_answers(replay, theirs, path):
    """Whether enough of the dev answers agree, and say something."""
    with h5py.File(path) as file:
        ours = [replay.head.read(json.loads(line)) for line in file[f"predictions/{replay.task}/answer"].asstr()[()]]
    if len(ours) != len(theirs):
        sys.exit(f"{path}: {len(ours)} answers, and {len(theirs)} dev sequences in replay.h5: expected one sequence an example (a higher max_length)")
    agreed = sum(a == b for (a, _), (b, _) in zip(ours, theirs)) / len(ours)
    apart = max((abs(p - b[key]) for (_, a), (_, b) in zip(ours, theirs) for key, p in a.items() if key in b), default=0)
    telling, summary = replay.head.summary(theirs)
    print(f"{len(ours)} dev examples: {agreed:.2%} of the answers agree (allowed {ALLOWED_AGREEMENT:.0%}), probabilities within {apart:.2g}; {summary}"
          + ("" if telling else ": that says nothing of the answers; train longer, or from a checkpoint"))
    return agreed >= ALLOWED_AGREEMENT and telling


def self_check():
    """Against values worked out in f64 by hand and printed to ten decimals."""
    printed = 5e-11 + 1e-14  # half of the last digit, and the roundings of a few f64 operations
    numbers = lambda *values: torch.tensor(values, dtype=torch.float64)

    def equal(what, made, *expected):
        difference = (made.detach().flatten() - numbers(*expected)).abs().max().item()
        print(f"{what}: largest difference {difference:.1g}")
        if not difference <= printed:
            sys.exit(f"{what}: made {made.tolist()}, expected {list(expected)}")

    # Two updates of one tensor; as query, as key with gradients of another scale, as value whose second gradient is zero: it stays what it is.
    # The other tensor begins at 0, as biases do, and moves all the same; its second u is 0.15225, and is not enlarged to 1.
    p, first = numbers(3, 4, 0), (2.9998556624, 4.0001443376, -.0001443376)
    weights = {"p": p.clone().requires_grad_(), "qkv": p.repeat(3, 1).requires_grad_(), "falling": numbers(0).requires_grad_()}
    optimizer = supervised.AdaFactor(weights)
    for g, value_g, falling_g, m, after, falling in (
            (numbers(.1, -.2, .05), numbers(.1, -.2, .05), 1, (.1, -.1, .1), first, -5e-8),
            (numbers(.3, .1, -.05), numbers(0, 0, 0), .1, (.2158331459, -.0242510465, -.0092123707), (2.9995441323, 4.0001793411, -.0001310406), -1.026e-7)):
        weights["p"].grad, weights["qkv"].grad, weights["falling"].grad = g, torch.stack((g, 1e3 * g, value_g)), numbers(falling_g)
        optimizer.step(5e-4)
        equal("AdaFactor", weights["p"], *after)
        equal("AdaFactor, m", optimizer.tensors[0][2], *m)
        equal("AdaFactor, query, key and value", weights["qkv"], *after, *after, *first)
        equal("AdaFactor, a falling gradient", weights["falling"], falling)

    for scores, right, loss in (((2, -1, .5), (1, 0, 0), 1.2310586164), ((2, -1, .5), (1, 0, 1), .8682186072), ((0, 0, 0), (1, 0, 0), math.log(3) + math.log(2))):
        # Cells that are not allowed change nothing, whatever they score.
        scores, right = numbers(*scores, 9, -9)[None], torch.tensor((*right, 0, 1)).bool()[None]
        equal("multilabel cross-entropy", supervised.multilabel_loss(scores, right, torch.tensor((True, True, True, False, False))), loss)

    weights = {"task/t/dense": torch.eye(4, dtype=torch.float64), "task/t/bias_dense": numbers(.1, .3, 0, 1, .2, -.1, .5, 0).view(2, 4)}
    scores = supervised.pair_scores(weights, "t", numbers(1, 2, 3, 4, .5, -1, 1, 0).view(2, 4))
    equal("EfficientGlobalPointer", scores, 12.9994949366, -1.542080943, 4.6102571219, -.1285533906)
    if supervised.pairs_allowed(4, (1, 3)).nonzero().tolist() != [[1, 1], [1, 2], [2, 2]]:
        sys.exit(f"pairs_allowed: {supervised.pairs_allowed(4, (1, 3)).tolist()}")


def main():
    parser = argparse.ArgumentParser(description="a fine-tuning run again, in PyTorch")
    parser.add_argument("output", type=pathlib.Path, nargs="?", help="output folder of `roformer finetune` with dump_batches")
    parser.add_argument("task", type=pathlib.Path, nargs="?", help="its task file, with the labels listed")
    parser.add_argument("--every", type=int, default=10, help="print every so many updates")
    parser.add_argument("--dtype", choices=("f32", "f64"), default="f32", help="of PyTorch")
    parser.add_argument("--self-check", action="store_true", help="check the formulas alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small tensors: threads cost more than they bring
    if arguments.self_check:
        return self_check()
    if not arguments.task:
        parser.error("expected OUTPUT and TASK, or --self-check")
    folder, answer_after = find_run(arguments.output)
    model, rule = roformer_v2.read_run(folder, "adafactor")
    labels = read_labels(arguments.task)
    with h5py.File(folder / "replay.h5") as file:
        replay = Replay(file, labels, model, rule, torch.float64 if arguments.dtype == "f64" else torch.float32)
        worst, answers = follow(replay, answer_after, arguments.every)
        agreed = compare_answers(replay, answers, arguments.output / "results.h5")
    sys.exit(0 if worst <= ALLOWED_LOSS and agreed else 1)


if __name__ == "__main__":
    main()

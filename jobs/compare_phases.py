"""Trains and scores what compare_phases.sh describes, a run after the other, then makes the page."""

import argparse
import json
import os
import pathlib
import shutil
import sys

from comparison import OTHER_FAMILY, SOURCE, Comparison, Progress, above_zero, add_common, guarded, numbers, rate, rising_and_falling, sets, words, zero_or_more

sys.path.insert(0, str(SOURCE / "postprocess"))  # the page is made by the module of the same name there

COMPARISON = Comparison("compare_phases")
MIX = "tnews afqmc cluewsc2020 csl ocnli chid thucnews_title waimai_10k smp2020_ewect_usual sts_b_zh simclue_rank ecommerce_ner"
OF_BOTH_PHASES = ("masking.", "evaluation.")  # what of --set
MAY_GROW = ("seeds", "tasks", "ranks", "threads", "device", "output")  # from one start to the next


def arguments():
    parser = argparse.ArgumentParser(prog="compare_phases")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default=str(SOURCE / "inputs/model/small.json"))
    parser.add_argument("--updates", type=above_zero, default=2000)
    parser.add_argument("--supervised", type=above_zero, default=1000)
    parser.add_argument("--sequences", type=above_zero, default=64)
    parser.add_argument("--length", type=above_zero, default=128)
    parser.add_argument("--rate", type=rate, default=1e-3)
    parser.add_argument("--supervised-rate", type=rate)
    parser.add_argument("--mix", type=words, default=MIX.split())
    parser.add_argument("--tasks", type=words, default=["tnews", "afqmc", "cluewsc2020", "csl"])
    parser.add_argument("--epochs", type=above_zero, default=3)
    parser.add_argument("--rows", type=zero_or_more, default=0)
    parser.add_argument("--dev-rows", type=zero_or_more, default=0)
    parser.add_argument("--tuning-rate", type=rate, default=5e-4)
    parser.add_argument("--seeds", type=numbers, default=[1, 2, 3])
    parser.add_argument("--set", action="append", default=[], dest="more")
    add_common(parser, "runs/compare_phases")
    a = parser.parse_args()
    a.supervised_rate = a.supervised_rate or a.rate
    for option in ("corpus", "vocab", "data", "model"):
        if not os.path.exists(getattr(a, option)):
            COMPARISON.refuse(f"--{option}: {getattr(a, option)} is not there")
    family = content_of(a.model, "--model").get("family")
    if family != "roformer_v2":
        COMPARISON.refuse(f"--model: {a.model}: expected the family roformer_v2, found {family}")
    return a


def content_of(path, option):
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        COMPARISON.refuse(f"{option}: {path} cannot be read: {error}")
    if not isinstance(content, dict):
        COMPARISON.refuse(f"{option}: {path}: expected an object")
    return content


def tasks_of(names, option):
    """Path -> content of task files, by path or by their name in inputs/tasks."""
    found = {}
    for name in names:
        path = pathlib.Path(name if name.endswith(".json") else SOURCE / f"inputs/tasks/{name}.json")
        if not path.is_file():
            COMPARISON.refuse(f"{option}: {path} is not there")
        found[str(path)] = {"name": path.stem, "weight": 1, "max_length": 128, **content_of(path, option)}
    names = [task["name"] for task in found.values()]
    if not names or len(set(names)) < len(names):
        COMPARISON.refuse(f"{option}: expected names of tasks, each once")
    return found


def mix_of(a):
    """Task files of the supervised phase; none may have longer sequences than the budget counts."""
    every = a.mix == ["all"]
    mix = tasks_of(sorted(path.stem for path in (SOURCE / "inputs/tasks").glob("*.json")) if every else a.mix, "--mix")
    longer = [task["name"] for task in mix.values() if task["max_length"] > a.length]
    if longer and not every or len(longer) == len(mix):
        COMPARISON.refuse(f"--mix: sequences of {' '.join(longer)} are longer than --length {a.length}")
    return {path: task for path, task in mix.items() if task["max_length"] <= a.length}


def hold_settings(a, mix):
    """Runs of one folder belong together: what they are made by is kept there, and may not change."""
    found = {key: value for key, value in vars(a).items() if key not in MAY_GROW} | {"mix": [task["name"] for task in mix.values()]}
    path = a.output / "settings.json"
    if path.exists() and any(a.output.glob("seed-*/**/run.json")):  # a run has begun
        before = content_of(path, "--output")
        for key, value in found.items():
            if before.get(key) != value:
                option = "set" if key == "more" else key.replace("_", "-")
                COMPARISON.refuse(f"--{option}: {a.output} holds runs with {json.dumps(before.get(key))}, not {json.dumps(value)}; name another --output")
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def put_task(a, task):
    path = a.output / f"tasks/{task['name']}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(task, ensure_ascii=False) + "\n", encoding="utf-8")
    return str(path)


def runs_of(a, mix, scored, arms):
    """(folder, command, settings), each after those whose checkpoints it needs."""
    common = {"parallel.threads": a.threads, "device": a.device, "batch.lanes": max(2, a.ranks)}
    masking = {"corpus": a.corpus, "evaluation.documents": 200, "log_every": 50}
    mlm = put_task(a, {"name": "mlm", "kind": "mlm", "about": "as often as all tasks of the mix", "weight": sum(task["weight"] for task in mix.values()), "max_length": a.length})
    tasks = {task["name"]: put_task(a, {**task, "submission": {}}) for task in scored.values()}  # no answers are handed in, so one row of test will do
    rows = {"data": a.data, "cache": a.output / "prepared"}

    def training(updates, learning_rate):
        return {**common, **masking, "steps": updates, "batch.sequences": a.sequences, "optimizer.lr": learning_rate, "schedule.lr": rising_and_falling(updates),
                "eval_every": updates, "checkpoint_every": max(1, updates // 10), "keep": 1}

    def pretrain(updates, **family):
        return {**training(updates, a.rate), "vocab": a.vocab, "model": json.dumps({"file": a.model, **family}), "batch.max_length": a.length,
                "schedule.alpha": f"[[0,0],[{max(1, a.updates // 4)},1]]"}

    for seed in a.seeds:
        folder, one = a.output / f"seed-{seed}", {"seed": seed}
        yield folder / "roformer/trained", "pretrain", {**one, **pretrain(a.updates + a.supervised, family="roformer", **OTHER_FAMILY)}
        yield folder / "mlm/trained", "pretrain", {**one, **pretrain(a.updates + a.supervised)}
        yield folder / "begun", "pretrain", {**one, **pretrain(a.updates)}
        for arm, normalise in (("tasks", "none"), ("tasks_normalised", "shared")):
            yield folder / arm / "trained", "multitask", {**one, **training(a.supervised, a.supervised_rate), **rows, "checkpoint": folder / "begun", "tasks": json.dumps([mlm, *mix]),
                                                          "mix.normalise": normalise, "mix.micro_steps": min(8, a.sequences), "limit.dev": 200}
        for task, path in tasks.items():
            for arm in arms:
                yield folder / arm / "tuned" / task, "finetune", {**one, **common, **rows, "checkpoint": folder / arm / "trained", "task": path, "epochs": a.epochs, "optimizer.lr": a.tuning_rate,
                                                                 "limit.train": a.rows, "limit.dev": a.dev_rows, "limit.test": 1}


def main():
    a = arguments()
    mix, scored = mix_of(a), tasks_of(a.tasks, "--tasks")
    COMPARISON.prepare(a.output)
    hold_settings(a, mix)
    import compare_phases
    runs = list(runs_of(a, mix, scored, compare_phases.ARMS.values()))
    left = [run for run in runs if not (run[0] / "done").exists()]
    print(f"compare_phases: {len(runs)} runs of {a.updates} + {a.supervised} updates of {a.sequences} x {a.length} and {a.epochs} epochs into {a.output}, "
          f"{len(runs) - len(left)} of them there", flush=True)
    progress = Progress(len(left))
    for folder, command, settings in left:
        folder.mkdir(parents=True, exist_ok=True)
        more = [one for one in a.more if command == "pretrain" or command == "multitask" and one.startswith(OF_BOTH_PHASES)]
        code, text = COMPARISON.run(a.ranks, [command, *sets({**settings, "output": folder}), *(word for one in more for word in ("--set", one))], folder / "output.txt")
        if code:
            COMPARISON.give_up(text, folder, code)
        if command == "finetune":
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        (folder / "done").touch()
        progress.tell(f"{folder.relative_to(a.output)}: {compare_phases.found_in(folder)}")
    compare_phases.write_page(a.output, a.output / "compare_phases.html")


if __name__ == "__main__":
    guarded("compare_phases", main)

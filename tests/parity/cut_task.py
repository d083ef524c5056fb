#!/usr/bin/env python3
"""A task cut to its first rows, with a copy of its task file: without corruption, held-out shares and test parts. finetune.sh calls it.

    cut_task.py inputs/tasks/tnews.json DATA FOLDER --train 2000 --dev 2000    # FOLDER/tnews.json, FOLDER/train.jsonl, FOLDER/dev.jsonl

Rows are lines. A task without a dev part gives the training rows that follow.
"""

import argparse
import itertools
import json
import lzma
import pathlib


def lines_of(path):
    with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8") as file:
        yield from file


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("task", type=pathlib.Path)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--train", type=int, required=True)
    parser.add_argument("--dev", type=int, required=True)
    a = parser.parse_args()
    task = json.loads(a.task.read_text(encoding="utf-8"))
    train = lines_of(a.data / task["train"])
    parts = {"train": list(itertools.islice(train, a.train))}
    parts["dev"] = list(itertools.islice(lines_of(a.data / task["dev"]) if "dev" in task else train, a.dev))
    for name, rows in parts.items():
        wanted = getattr(a, name)
        if len(rows) < wanted:
            parser.error(f"{a.task}: {len(rows)} rows for {name}, expected {wanted}")
        (a.folder / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")
        task[name] = f"{name}.jsonl"
    for key in ("test", "hashed"):
        task.pop(key, None)
    task["corrupt"] = False
    (a.folder / a.task.name).write_text(json.dumps(task, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

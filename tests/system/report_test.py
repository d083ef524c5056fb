#!/usr/bin/python3
"""report.py on files written by hand: what the page of each command holds, several runs on one page, what is no run."""

import json
import os
import subprocess
import sys

import h5py
import harness

REPORT = os.path.join(harness.SOURCE, "postprocess/report.py")
UPDATES = 20


def fill(group, **columns):
    for name, values in columns.items():
        group[name] = values


def results(folder, evaluations=None, tasks=None, given=None, predictions=None):
    """results.h5 of 20 updates."""
    os.makedirs(folder, exist_ok=True)
    with h5py.File(f"{folder}/results.h5", "w") as file:
        file.attrs["kind"] = "roformer results"
        file.create_group("meta").attrs.update(program="roformer", processor="one", ranks=2, dtype="f32", parameters=1234567, input=json.dumps(given or {}))
        fill(file.create_group("train"), step=[i + 1.0 for i in range(UPDATES)], loss=[3 - i / 10 for i in range(UPDATES)],
             **{name: [1.0] * UPDATES for name in ("accuracy", "lr", "alpha", "grad_norm", "tokens", "seconds", "tokens_per_second", "flops_per_second")})
        for name, columns in (evaluations or {}).items():
            fill(file.create_group(f"eval/{name}"), **columns)
        for name, columns in (tasks or {}).items():
            fill(file.create_group(f"tasks/{name}"), **columns)
        if predictions:
            fill(file.create_group("predictions/mood"), **predictions)


def finetuning(folder):
    """Two runs of two epochs; of four dev rows three are right and one's label is not known."""
    task = {"task_file": {"name": "mood", "kind": "classify"}, "task_labels": ["good & well", "bad"]}
    answers = [json.dumps({"label": "good & well"})] * 3 + [json.dumps({"label": "bad"})] * 2
    dev = {"step": [10.0, 20.0], "epoch": [1.0, 2.0], "loss": [2.0, 1.5], "accuracy": [0.75, 0.5]}
    results(folder, {"mood": dev}, given=task, predictions={"label": [0, 0, 1, 1, -1], "answer": answers})
    for seed in (1, 2):
        results(f"{folder}/runs/lr-0.001-seed-{seed}", {"mood": dev}, given=task)
    runs = [{"learning_rate": 0.001, "seed": seed, "epoch": 1, "step": 10, "metrics": {"accuracy": value}} for seed, value in ((1, 0.75), (2, 0.5))]
    with open(f"{folder}/metrics.json", "w", encoding="utf-8") as file:
        json.dump({"task": "mood", "train_examples": 8, "dev_examples": 5, "test_examples": 0, "best": runs[0], "runs": runs}, file)


def report(*words, expect=0):
    """What is printed, and the page."""
    env = {k: v for k, v in os.environ.items() if k != "RF_DATA"}
    done = subprocess.run([sys.executable, REPORT, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, env=env, check=False)
    text = done.stdout.decode()
    assert done.returncode == expect and "Traceback" not in text and "Warning" not in text, f"{words}: exit code {done.returncode}, expected {expect}\n{text}"
    return text, open(text.splitlines()[-1], encoding="utf-8").read() if expect == 0 else ""


def test_pretraining_and_finetuning_on_one_page():
    results("pre", {"mlm": {"step": [0.0, 20.0], "loss": [5.0, 1.0], "perplexity": [148.4, 2.7], "accuracy": [0.0, 0.5]}})
    with open("pre/examples.txt", "w", encoding="utf-8") as file:
        file.write("一[MASK]\n\t二 0.5\t三 2.5e-1\n")
    finetuning("fine")
    text, page = report("pre", "fine", "-o", "both.html")
    for line in ("Pre-training, pre:", "  held-out loss: 1.0000 nats (perplexity 2.7, accuracy 50.0%)", "Fine-tuning, fine:", "  rows: train 8, dev 5, test 0",
                 "  dev accuracy: 0.7500 (learning rate 0.001, seed 1, epoch 1)", "  mean of 2 runs: 0.6250, deviation 0.1768",
                 "  most frequent label: good & well, 0.5000 of the dev rows"):
        assert line in text.splitlines(), f"{line}\n{text}"
    assert "<td>三 <small>25.0%</small></td>" in page
    # Of the two rows that are good both are taken for it, of the bad ones one.
    assert "<td>good &amp; well</td><td class=n>2</td><td class=n>0.6667</td><td class=n>1</td><td></td>" in page, page[-4000:]
    assert "<td>bad</td><td class=n>2</td><td class=n>1</td><td class=n>0.5000</td><td>good &amp; well (1)</td>" in page, page[-4000:]


def test_a_finetuning_under_way():
    results("early/runs/lr-0.001-seed-1")
    assert "  state: under way: 1 runs begun" in report("early")[0].splitlines()


def test_multitask_has_a_row_a_task():
    nan = float("nan")
    results("multi", {"mood": {"step": [0.0, 20.0], "loss": [2.0, 1.0], "accuracy": [0.25, 0.5]}},
            {"mood": {"step": [1.0, 5.0], "loss": [2.0, 2.0], "grad_norm": [4.0, 4.0], "cosine": [nan, 0.5]},
             "never": {name: [] for name in ("step", "loss", "grad_norm", "cosine")}})
    text, page = report("multi")
    assert "  mean of the tasks' main dev figures: 0.5000 (of 1)" in text.splitlines(), text
    assert "<td>mood</td><td class=n>2</td><td><svg class=spark" in page and "<td>never</td><td class=n>0</td>" in page
    assert "<td>accuracy 0.5000</td>" in page


def test_clue_has_the_table_and_the_epochs():
    finetuning("clue/tnews")
    with h5py.File("clue/clue.h5", "w") as file:
        file.attrs.update(program="roformer", input="{}")
        fill(file.create_group("clue/tnews"), dev=[0.75, 0.5], seed=[1, 2])
        file["clue/tnews"].attrs.update(metric="accuracy", missing="", dev_examples=5, train_examples=8)
        file.create_group("clue/chid").attrs.update(metric="", missing="chid/train.json is not there")
    text, page = report("clue")
    assert "  tasks: 1" in text.splitlines() and "  missing: 1" in text.splitlines(), text
    assert "62.50 ± 17.68" in page and "<h3>tnews</h3>" in page and "chid/train.json is not there" in page


def test_what_is_no_run():
    os.makedirs("none/runs", exist_ok=True)
    assert report("nowhere", expect=1)[0] == "report.py: nowhere/results.h5 does not exist (expected the output folder of a run)\n"
    assert report("none", expect=1)[0] == "report.py: none holds no run yet\n"
    os.makedirs("text", exist_ok=True)
    with open("text/results.h5", "w", encoding="utf-8") as file:
        file.write("no HDF5")
    assert "text/results.h5 cannot be read" in report("text", expect=1)[0]


if __name__ == "__main__":
    harness.main(globals())

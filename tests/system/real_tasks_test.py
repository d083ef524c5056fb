#!/usr/bin/python3
"""The shipped task files over the real data: every task trains, to the same bits on one and two ranks; every kind learns real rows by heart;
and the submission files of the eleven CLUE tasks, scored here, give the figures of clue.h5."""

import collections
import glob
import json
import math
import os
import sys

import h5py
import numpy

from harness import SKIP, main, run, sets, state
from real_data import DATA, TASKS, VOCAB, have_data, packed
from scorers import cmrc, f1_of


def settings(output, hidden, layers, **more):
    return sets(**{**dict(model__hidden_size=hidden, model__num_attention_heads=4, model__num_hidden_layers=layers, model__intermediate_size=2 * hidden,
                          model__vocab_size=12000, vocab=VOCAB, data=DATA, cache="prepared", output=output, dtype="f32", parallel__threads=1), **more})


# Every task.


def table(group):
    return {name: column[:] for name, column in group.items()}


def test_three_updates_of_every_task_on_one_and_two_ranks():
    files = sorted(glob.glob(f"{TASKS}/*.json"))
    names = {os.path.basename(file).removesuffix(".json") for file in files}
    updates = 150  # of 8 draws: the rarest tasks, 1 in 105, come 11 times on average
    for ranks in (1, 2):
        run("multitask", *settings(f"every{ranks}", 32, 1, tasks=json.dumps(files), steps=updates, batch__sequences=16, batch__lanes=2, mix__micro_steps=8,
                                   schedule__lr="[[0,1]]", limit__train=64, limit__dev=16, limit__test=1, eval_every=updates, checkpoint_every=updates,
                                   log_every=updates), ranks=ranks, timeout=600)
    assert state("every1") == state("every2")
    with h5py.File("every1/results.h5", "r") as one, h5py.File("every2/results.h5", "r") as two:
        assert set(one["tasks"]) == set(one["eval"]) == set(two["tasks"]) == set(two["eval"]) == names, names ^ set(one["eval"])
        for name in names:
            for group in ("tasks", "eval"):
                first, second = table(one[group][name]), table(two[group][name])
                assert first.keys() == second.keys() and all(numpy.array_equal(first[key], second[key], equal_nan=True) for key in first), (group, name)
            trained, judged = table(one["tasks"][name]), table(one["eval"][name])
            assert len(set(trained["step"])) >= 3, f"{name}: {len(set(trained['step']))} updates"
            assert all(0 < loss < math.inf for loss in trained["loss"]), (name, trained["loss"])
            assert judged.keys() > {"step", "loss", "examples"} and all(math.isfinite(column[-1]) for column in judged.values()), (name, judged)


# By heart.

ROWS = 32
# The task of each kind, and the epochs it takes.
BY_HEART = {"classify": ("tnews", 40), "regress": ("sts_b_zh", 60), "multiple_choice": ("e_kar", 40), "span": ("dureader_robust", 20),
            "entities": ("weibo_ner", 120), "rank": ("simclue_rank", 40), "relations": ("duie", 80), "events": ("duee", 80)}
# Of sets with many types short rows whose marks are all of a few: a type that stands in one row in a hundred is not learnt in minutes.
FEW = {"duie": lambda row: [one["predicate"] for one in row["spo_list"]], "duee": lambda row: [one["event_type"] for one in row["event_list"]]}
FEW_TYPES = {"duie": ("主演", "作者", "歌手", "导演"), "duee": ("竞赛行为",)}


def shipped(name):
    with open(f"{TASKS}/{name}.json", encoding="utf-8") as file:
        return json.load(file)


def write_task(task, rows, **more):
    """NAME.json: the task with these sources as train, dev and test. Returns it."""
    task = {**task, "train": rows, "dev": rows, "test": rows, "guard": False, **more}
    task.pop("hashed", None)
    with open(f"{task['name']}.json", "w", encoding="utf-8") as out:
        json.dump(task, out, ensure_ascii=False)
    return task


def few(task):
    """The task on rows with few types, in NAME.rows; no blanks, since a mark that begins with one is no run of tokens."""
    name = task["name"]
    types = FEW_TYPES[name]
    with open(f"{name}.rows", "w", encoding="utf-8") as out:
        for line in packed(DATA, task["train"]).strip("\n").split("\n"):
            row = json.loads(line)
            found = FEW[name](row)
            if found and all(one.startswith(types) for one in found) and len(row["text"]) < 60 and " " not in row["text"]:
                out.write(line + "\n")
    return {**task, "train": f"{name}.rows", "labels": [label for label in task["labels"] if label.startswith(types)]}


def check_by_heart(kind):
    name, epochs = BY_HEART[kind]
    task = few(shipped(name)) if name in FEW else shipped(name)
    assert task["kind"] == kind
    # Equal scores have no order, so that no rank correlation of them is 1.
    write_task(task, task["train"], submission={}, max_bad=1000, metric="pearson" if kind == "regress" else "")
    run("finetune", *settings(f"{name}-run", 128, 2, task=f"{name}.json", data="." if name in FEW else DATA, model__hidden_dropout_prob=0, model__attention_probs_dropout_prob=0,
                              model__residual_mode="plain", epochs=epochs, batch__sequences=4, optimizer__lr=3e-3, schedule__lr=f"[[0,1],[{8 * epochs},{0.1 if name in FEW else 1}]]",
                              limit__train=ROWS, limit__dev=ROWS, limit__test=1), timeout=600)
    with open(f"{name}-run/metrics.json", encoding="utf-8") as file:
        found = json.load(file)
    assert (found["train_examples"], found["dev_examples"]) == (ROWS, ROWS), found
    value = next(iter(found["best"]["metrics"].values()))
    # Scores come near; everything else is right or wrong.
    assert value > 0.99 if kind == "regress" else value == 1, found["best"]


for one in BY_HEART:
    globals()[f"test_{one}_of_real_rows_is_learnt_by_heart"] = lambda kind=one: check_by_heart(kind)


# What is handed in.

ROUNDING = 1e-11  # figures are kept to 12 places
# Rows, and rounds over them until some answers are right and some wrong.
CLUE = {"iflytek": (60, 6), "tnews": (100, 4), "afqmc": (100, 2), "cmnli": (100, 2), "ocnli": (100, 2), "cluewsc2020": (60, 2), "csl": (60, 2),
        "cmrc2018": (20, 12), "c3": (24, 3), "chid": (40, 4), "cluener": (60, 25)}


def lines(text):
    return [json.loads(line) for line in text.strip("\n").split("\n")]


def read(files):
    return [packed(DATA, file) for file in (files if isinstance(files, list) else [files])]


def right_labels(task):
    rows = [row for text in read(task["dev"]) for row in lines(text) if row["label"] != "-"]
    return {row.get("id", number): row["label"] for number, row in enumerate(rows)}


def right_choices(task):
    questions = [question for text in read(task["dev"]) for record in json.loads(text) for question in record[1]]
    return {number: str(question["choice"].index(question["answer"])) for number, question in enumerate(questions)}


def right_idioms(task):
    return json.loads(*read(task["dev"]["reader"]["join"]["files"]))


def right_answers(task):
    whole = json.loads(*read(task["dev"]))
    return {question["id"]: [answer["text"] for answer in question["answers"]] for article in whole["data"] for paragraph in article["paragraphs"]
            for question in paragraph["qas"]}


def share(pairs):
    return sum(right == answer for right, answer in pairs) / len(pairs)


def label_figures(pairs):
    types = collections.defaultdict(lambda: (set(), set()))
    for number, pair in enumerate(pairs):
        for side, label in enumerate(pair):
            types[label][side].add(number)
    return {"accuracy": share(pairs), "macro_f1": f1_of(types)[1]}


def answer_figures(pairs):
    exact, f1 = zip(*(cmrc(answer, right) for right, answer in pairs))
    return {"exact_match": sum(exact) / len(pairs), "f1": sum(f1) / len(pairs)}


def entity_figures(pairs):
    types = collections.defaultdict(lambda: (set(), set()))
    for number, pair in enumerate(pairs):
        for side, marks in enumerate(pair):
            for kind, found in marks.items():
                types[kind][side].update((number, *place) for places in found.values() for place in places)
    micro, macro = f1_of(types)
    return {"micro_f1": micro, "macro_f1": macro}


# Of those that are no classification: the right answers by id, and what pairs of right and given answers score.
RULES = {"cmrc2018": (right_answers, answer_figures), "c3": (right_choices, lambda pairs: {"accuracy": share(pairs)}),
         "chid": (right_idioms, lambda pairs: {"assigned_accuracy": share(pairs)}), "cluener": (right_labels, entity_figures)}


def handed_in(task):
    """Answers by id, of all files."""
    answers = {}
    for name in task["submission"]["files"]:
        with open(f"clue/submission/{name}", encoding="utf-8") as file:
            text = file.read()
        answers.update(json.loads(text) if task["submission"]["form"] in ("answers", "choices") else {row["id"]: row["label"] for row in lines(text)})
    return answers


def test_submission_files_score_what_clue_h5_says():
    """Test parts have no answers that are known, so the rows of dev, or of train where dev is a share of it, stand in for all parts."""
    tasks = []
    for name in CLUE:
        task = shipped(name)
        rows = task.get("dev") or task["train"]
        files = task["submission"]["files"][:len(rows) if isinstance(rows, list) else 1]
        tasks.append(write_task(task, rows, submission={**task["submission"], "files": files}))
    run("multitask", *settings("start", 64, 1, tasks='["tnews.json"]', steps=0, limit__dev=1, model__hidden_dropout_prob=0, model__attention_probs_dropout_prob=0,
                               model__residual_mode="plain"))
    own = {name: {"epochs": epochs, "batch": {"sequences": 4}, "limit": dict.fromkeys(("train", "dev", "test"), rows)} for name, (rows, epochs) in CLUE.items()}
    run("clue", *sets(checkpoint="start", output="clue", tasks=json.dumps([f"{name}.json" for name in CLUE]), data=DATA, cache="prepared", dtype="f32", parallel__threads=1,
                      finetune=json.dumps({"optimizer": {"lr": 3e-3}}), settings=json.dumps(own)), timeout=600)
    with h5py.File("clue/clue.h5", "r") as clue:
        for task in tasks:
            name = task["name"]
            right_of, score = RULES.get(name, (right_labels, label_figures))
            right, answers = right_of(task), handed_in(task)
            assert len(answers) == clue["clue"][name].attrs["dev_examples"] == CLUE[name][0], (name, len(answers))
            scored = score([(right[key], answer) for key, answer in answers.items()])
            for metric, value in scored.items():
                (figure,) = clue["clue"][name]["metrics"][metric][:]
                assert abs(figure - value) < ROUNDING, f"{name}: {metric} {value} of the submission, {figure} in clue.h5"
            main_figure = scored[clue["clue"][name].attrs["metric"]]
            assert 0.05 < main_figure < 0.98, f"{name}: {main_figure} tells too little"


if __name__ == "__main__":
    if not have_data():
        sys.exit(SKIP)
    main(globals())

#!/usr/bin/python3
"""Multi-task training through the command line: its bits do not depend on ranks or on being stopped, tasks may join a run, every rule of
mixing runs and does what it says, and what is wrong with tasks is said once, with its place."""

import glob
import json
import math
import os
import shutil
import signal
import subprocess
import time

import h5py

from harness import ROFORMER, main, prepare, run, sets, state
from small_tasks import KINDS, write_task

MODEL = dict(model__hidden_size=32, model__num_attention_heads=4, model__num_hidden_layers=2, model__intermediate_size=64, model__vocab_size=400)


def tiny(output, tasks=None, **more):
    """Settings of 12 updates of 4 micro-steps with dropout and corruption."""
    settings = dict(**MODEL, vocab="vocab.txt", tasks=json.dumps(tasks if tasks is not None else every_kind()), corpus="corpus", output=output, steps=12,
                    batch__sequences=16, batch__lanes=2, mix__micro_steps=4, mix__cosine_every=3, schedule__lr="[[0,1]]", optimizer__lr=2e-3,
                    eval_every=6, checkpoint_every=2, evaluation__documents=20, dtype="f32", parallel__threads=1)
    settings.update(more)
    return sets(**settings)


def every_kind():
    """A task of each kind and masked language modelling."""
    prepare()  # with its vocabulary, which holds some of the tasks' characters
    with open("mlm.json", "w", encoding="utf-8") as out:
        json.dump({"name": "mlm", "kind": "mlm", "max_length": 32, "weight": 2}, out)
    return [*(write_task(kind) for kind in KINDS), "mlm.json"]


def undisturbed():
    if not os.path.exists("whole/results.h5"):
        run("multitask", *tiny("whole"))
    return state("whole")


def tensors(folder):
    """Weights of the newest checkpoint by name."""
    found = {}
    newest = sorted(glob.glob(f"{folder}/checkpoints/step-*"))[-1]
    with h5py.File(f"{newest}/checkpoint.h5", "r") as file:
        file.visititems(lambda name, item: found.__setitem__(name, item[:]) if isinstance(item, h5py.Dataset) and not name.startswith("optimizer") else None)
    return found


def check_tables(folder, updates, micro_steps):
    """Columns of equal length; every micro-step stands in one task's table. Returns the rows of all tasks: update -> list of dicts."""
    by_update = {}
    with h5py.File(f"{folder}/results.h5", "r") as file:
        tables = [file["train"], *file["tasks"].values(), *file["eval"].values()]
        for table in tables:
            assert len({len(column) for column in table.values()}) == 1, table.name
        assert list(file["train/step"][:]) == list(range(1, updates + 1))
        for name, table in file["tasks"].items():
            columns = {key: column[:] for key, column in table.items()}
            for i in range(len(columns["step"])):
                by_update.setdefault(int(columns["step"][i]), []).append({"task": name, **{key: float(column[i]) for key, column in columns.items()}})
    assert sorted(by_update) == list(range(1, updates + 1))
    for rows in by_update.values():
        assert sorted(row["micro_step"] for row in rows) == list(range(micro_steps))
    return by_update


def test_ranks_give_the_same_bits():
    whole = undisturbed()
    run("multitask", *tiny("two"), ranks=2)
    assert state("two") == whole
    check_tables("two", 12, 4)
    for settings in (dict(mix__min_norm="true"), dict(mix__normalise="all", optimizer__name="adamw")):
        for ranks in (1, 2):
            run("multitask", *tiny(f"rule{ranks}", steps=3, **settings), "--restart", ranks=ranks)
        assert state("rule1") == state("rule2"), settings


def test_stopped_and_killed_runs_end_as_undisturbed():
    whole = undisturbed()
    for folder, sign, code in (("stopped", signal.SIGTERM, 75), ("killed", signal.SIGKILL, -9)):
        for instant in (1, 4, 9):
            process = subprocess.Popen([ROFORMER, "multitask", *tiny(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and updates(folder) < instant:
                time.sleep(0.001)
            process.send_signal(sign)
            found = process.wait(timeout=60)
            assert found == code, (folder, instant, found)
        run("multitask", *tiny(folder), ranks=2)
        assert state(folder) == whole, folder
        check_tables(folder, 12, 4)


def updates(folder):
    if not os.path.exists(f"{folder}/results.jsonl"):
        return 0
    with open(f"{folder}/results.jsonl", encoding="utf-8") as lines:
        return sum('"table":"train"' in line for line in lines)


def test_rules_of_mixing():
    shares = {}
    for rule in ("none", "shared", "all"):
        run("multitask", *tiny(rule, mix__normalise=rule, steps=6))
        rows = check_tables(rule, 6, 4)
        for update, micro_steps in rows.items():
            for row in micro_steps:
                assert row["weight"] == 1 / 4 and row["grad_norm"] > 0, row
                assert math.isnan(row["cosine"]) == (update % 3 != 0), row
                assert math.isnan(row["cosine"]) or -1 <= row["cosine"] <= 1 + 1e-12, row
        shares[rule] = rows[1]
    # The first update's gradients are the same; the norm over a head too is larger than that over what is shared.
    for none, shared, both in zip(*(sorted(shares[rule], key=lambda row: row["micro_step"]) for rule in ("none", "shared", "all")), strict=True):
        assert none["task"] == shared["task"] == both["task"] and none["loss"] == shared["loss"] == both["loss"]
        assert none["grad_norm"] == shared["grad_norm"]
        assert both["grad_norm"] > shared["grad_norm"] or both["task"] == "mlm"
    assert len({state(rule) for rule in shares}) == 3

    run("multitask", *tiny("least", mix__min_norm="true", steps=6))
    for micro_steps in check_tables("least", 6, 4).values():
        weights = [row["weight"] for row in micro_steps]
        assert min(weights) >= 0 and abs(sum(weights) - 1) < 1e-12 and weights != [0.25] * 4, weights  # sums of 4 doubles near 1


def test_draws_by_weight():
    prepare()
    tasks = [write_task("classify", "often", weight=3), write_task("pair", "seldom")]
    run("multitask", *tiny("draws", tasks, steps=100, eval_every=100, checkpoint_every=100, mix__cosine_every=0))
    with h5py.File("draws/results.h5", "r") as file:
        often, seldom = (len(file[f"tasks/{name}/step"]) for name in ("often", "seldom"))
    assert often + seldom == 400
    # 3 of 4 in 400 draws: 300, within five deviations of sqrt(400 * 3/4 * 1/4) = 8.7.
    assert abs(often - 300) < 5 * math.sqrt(75), often
    # Of tasks of one size the draw by size, or by its root, is that by weight.
    for rule in ("proportional", "square_root"):
        run("multitask", *tiny(rule, tasks, steps=5, eval_every=5, mix__draw=rule))
    run("multitask", *tiny("given", tasks, steps=5, eval_every=5))
    assert state("proportional") == state("square_root") == state("given")


def test_a_task_may_join_but_not_leave():
    prepare()
    before, joined = [write_task("classify"), write_task("span")], [write_task("classify"), write_task("span"), write_task("entities")]
    run("multitask", *tiny("join", before, steps=4))
    old = tensors("join")
    # No further update: what was there is there, the new head is fresh.
    shutil.copytree("join", "look")
    run("multitask", *tiny("join", joined, steps=8))
    new = tensors("join")
    assert set(old) < set(new) and all("entities" in name for name in set(new) - set(old)), set(new) - set(old)
    rows = check_tables("join", 8, 4)
    assert {row["task"] for update in range(1, 5) for row in rows[update]} <= {"classify", "span"}
    assert "entities" in {row["task"] for update in range(5, 9) for row in rows[update]}
    # With a learning rate of 0 the encoder and the old heads stay as they were.
    run("multitask", *tiny("look", joined, steps=5, optimizer__lr=0))
    kept = tensors("look")
    assert all((old[name] == kept[name]).all() for name in old), [name for name in old if (old[name] != kept[name]).any()]
    text = run("multitask", *tiny("join", before, steps=12), expect=2)
    assert text.count("error:") == 1 and "task entities: absent here" in text, text
    assert (tensors("join")["embedding/word"] == new["embedding/word"]).all()


# What is wrong with tasks


def refused(output, *parts, command="multitask", ranks=1, settings=None, tasks=None, **more):
    """Exit code 2, one message that holds all of `parts`, no output but whole prepared tasks."""
    words = settings if settings is not None else tiny(output, tasks, **more)
    text = run(command, *words, expect=2, ranks=ranks)
    assert text.count("error:") == 1, text
    for part in parts:
        assert part in text, f"expected {part!r} in:\n{text}"
    left = [os.path.relpath(path, output) for path in glob.glob(f"{output}/**", recursive=True) if os.path.isfile(path)]
    assert all(path.startswith("prepared/") and path.endswith((".h5", ".digest")) for path in left), left


def write_rows(name, rows):
    with open(name, "w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_rows(name):
    with open(name, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def spoilt(kind, name, **changes):
    """A task whose seventh row has other fields; None takes one away."""
    file = write_task(kind, name)
    rows = read_rows(f"{name}.jsonl")
    rows[6] = {key: value for key, value in {**rows[6], **changes}.items() if value is not None}
    write_rows(f"{name}.jsonl", rows)
    return file


def test_bad_rows_are_named_by_file_and_line():
    prepare()
    good = write_task("classify")
    cases = [(spoilt("classify", "ugly", label="ugly"), ("ugly.jsonl:7", 'the label "ugly" is not in the table of 3 labels')),
             (spoilt("pair", "lacking", two=None), ("lacking.jsonl:7", "two", "missing")),
             (spoilt("span", "elsewhere", answers=[{"text": "無此", "start": 2}]), ("elsewhere.jsonl:7", "無此")),
             (spoilt("classify", "empty", text=""), ("empty.jsonl:7", "empty")),
             (spoilt("multiple_choice", "beyond", answer=3), ("beyond.jsonl:7",)),
             (spoilt("regress", "words", score="high"), ("words.jsonl:7", "high"))]
    for task, parts in cases:
        refused("bad", *parts, tasks=[good, task])
        refused("bad2", *parts, command="finetune", settings=fine("bad2", task))
    refused("bad3", *cases[0][1], tasks=[good, cases[0][0]], ranks=2)


def fine(output, task, **more):
    return sets(**{**MODEL, "vocab": "vocab.txt", "task": task, "output": output, "epochs": 1, "dtype": "f32", "parallel__threads": 1, **more})


def test_bad_task_files_are_named_by_key():
    prepare()
    good = write_task("classify")
    cases = [(write_task("classify", "spelt", lables=[]), ("spelt.json", 'unknown key "lables"', 'did you mean "labels"')),
             (write_task("classify", "strange", kind="clasify"), ("strange.json: kind", 'unknown "clasify"', "classify")),
             (write_task("classify", "metric", metric="f2"), ("metric.json: metric", 'unknown "f2"')),
             (write_task("classify", "source", train="absent.jsonl"), ("source.json: train", "absent.jsonl"))]
    for task, parts in cases:
        refused("bad", *parts, tasks=[good, task])
        refused("bad2", *parts, command="finetune", settings=fine("bad2", task))
    with open("twin.json", "w", encoding="utf-8") as out, open(good, encoding="utf-8") as file:
        out.write(file.read())
    refused("bad", 'twin.json: name: classify.json has a task "classify" already', tasks=[good, "twin.json"])
    refused("bad", "absent.json", tasks=["absent.json"])
    refused("bad", "tasks", "expected task files", tasks=[])
    refused("bad", "mix.draw", tasks=[good], mix__draw="even")
    refused("bad", "mix.normalise", tasks=[good], mix__normalise="half")
    refused("bad", "mix.micro_steps", tasks=[good], mix__micro_steps=0)
    refused("bad", "unknown key", "learning_rate", tasks=[good], learning_rate=1)
    refused("bad2", "dev", command="finetune", settings=fine("bad2", write_task("classify", "nodev", dev=None)))
    refused("bad2", "learning_rates", command="finetune", settings=fine("bad2", good, learning_rates="[0]"))
    every_kind()
    refused("bad", "corpus", "mlm", tasks=[good, "mlm.json"], corpus="")


def test_head_of_another_size_than_the_checkpoints():
    prepare()
    run("multitask", *tiny("three", [write_task("classify")], steps=2))
    four = write_task("classify", labels=["a", "b", "c", "d"])
    try:
        start = dict(checkpoint="three", model="{}")
        words = [w for pair in zip(*[iter(tiny("grown", [four], steps=4))] * 2, strict=True) if not pair[1].startswith("model.") for w in pair]
        refused("grown", "three", "classify", "[4", "[3", settings=[*words, *sets(**start)])
    finally:
        write_task("classify")


def test_task_that_one_rank_cannot_read():
    prepare()
    task = write_task("classify")
    os.makedirs("other", exist_ok=True)  # and empty
    first, second = tiny("apart", [task], data="."), tiny("apart", [task], data="other")
    done = subprocess.run(["mpirun", "-n", "1", ROFORMER, "multitask", *first, ":", "-n", "1", ROFORMER, "multitask", *second],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    text = done.stdout.decode()
    assert done.returncode == 2 and text.count("error:") == 1 and "[rank 1]" in text and "classify.jsonl" in text, (done.returncode, text)
    assert not glob.glob("apart/checkpoints/*"), os.listdir("apart")


if __name__ == "__main__":
    main(globals())

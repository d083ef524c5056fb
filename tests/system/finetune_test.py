#!/usr/bin/python3
"""Fine-tuning through the command line: every kind of task is learnt by heart, what it leaves is whole, and a run that is stopped or killed ends
as an undisturbed one."""

import glob
import json
import os
import signal
import subprocess
import time

import h5py

from harness import ROFORMER, main, run, sets
from small_tasks import KINDS, ROWS, write_task


def tiny(output, task, **more):
    """Settings of a run of 8 updates an epoch on a model without dropout."""
    settings = dict(model__hidden_size=32, model__num_attention_heads=4, model__num_hidden_layers=2, model__intermediate_size=64, model__vocab_size=80,
                    model__hidden_dropout_prob=0, model__attention_probs_dropout_prob=0, model__residual_mode="plain", vocab="vocab.txt", task=task,
                    output=output, epochs=20, batch__sequences=4, optimizer__lr=3e-3, dtype="f32", parallel__threads=1)
    settings.update(more)
    return sets(**settings)


def weights(folder):
    return next(line for line in run("inspect", folder).splitlines() if line.startswith("digest weights"))


def figures(folder):
    with open(f"{folder}/metrics.json", encoding="utf-8") as file:
        return json.load(file)


def contents(folder):
    """Every file of an outcome with its bytes."""
    return {path: open(path, "rb").read() for path in glob.glob(f"{folder}/**", recursive=True) if os.path.isfile(path)}


def check_outcome(folder, kind):
    found = figures(folder)
    assert (found["train_examples"], found["dev_examples"], found["test_examples"]) == (ROWS, ROWS, ROWS), found
    best = found["best"]
    value = next(iter(best["metrics"].values()))
    # The order of 32 different scores is right but for neighbours; everything else is right or wrong.
    assert value > 0.99 if kind == "regress" else value == 1, found
    assert found["test"] == best["metrics"], found  # the same rows by the same weights
    assert os.listdir(f"{folder}/checkpoints") == [f"step-{best['step']:08d}"], os.listdir(f"{folder}/checkpoints")
    run("verify", f"{folder}/checkpoints")
    with h5py.File(f"{folder}/results.h5", "r") as file:
        epochs = file[f"eval/{kind}/epoch"][:]
        assert list(epochs) == list(range(1, 1 + len(epochs)))
        assert len({len(column) for column in file["train"].values()}) == 1
        for part in (file[f"predictions/{kind}"], file[f"predictions/{kind}/test"]):
            names = [name for name in part if isinstance(part[name], h5py.Dataset) and name not in ("logits",)]
            assert {"id", "answer"} <= set(names) and all(len(part[name]) == ROWS for name in names), names
            assert [json.loads(answer)["id"] for answer in part["answer"].asstr()] == [str(i) for i in range(ROWS)]
    submission = f"{folder}/submission/out.json"
    with open(f"{kind}.json", encoding="utf-8") as file:
        form = json.load(file).get("submission", {}).get("form")
    assert os.path.exists(submission) == (form is not None)
    if form is not None:
        with open(submission, encoding="utf-8") as file:
            text = file.read()
        answers = json.loads(text) if form == "answers" else [json.loads(line) for line in text.splitlines()]
        assert len(answers) == ROWS
        if kind in ("classify", "pair"):
            with open(f"{kind}.jsonl", encoding="utf-8") as file:
                assert [a["label"] for a in answers] == [json.loads(line)["label"] for line in file]


def check_kind(kind):
    run("finetune", *tiny(kind + "-run", write_task(kind), epochs=EPOCHS.get(kind, 20)))
    check_outcome(kind + "-run", kind)


EPOCHS = {"entities": 60, "regress": 40}  # of kinds that need more than 20
for one in KINDS:
    globals()[f"test_{one}_is_learnt_by_heart"] = lambda kind=one: check_kind(kind)



def interrupted(output, settings, instants, sign, ranks=1):
    """Starts the run, ends it by a signal when its training rows are as many as each of `instants`, and lets it go on to its end."""
    command = [*(["mpirun", "-n", str(ranks)] if ranks > 1 else []), ROFORMER, "finetune", *settings]
    codes = []
    for instant in instants:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and rows(output) < instant:
            time.sleep(0.002)
        process.send_signal(sign)
        codes.append(process.wait(timeout=60))
    run("finetune", *settings)
    return codes


def rows(output):
    """Training rows in the journals of all runs."""
    count = 0
    for path in glob.glob(f"{output}/runs/*/results.jsonl"):
        with open(path, encoding="utf-8") as lines:
            count += sum('"train"' in line for line in lines)
    return count


def outcome(output):
    return weights(output), figures(output), [os.path.basename(p) for p in sorted(glob.glob(f"{output}/runs/*"))]


# Dropout is on, so that its draws are continued too; AdaFactor keeps moments.
LONG = dict(epochs=12, model__hidden_dropout_prob=0.1, model__attention_probs_dropout_prob=0.1, checkpoint_every=3)


def undisturbed():
    if not os.path.exists("undisturbed/metrics.json"):
        run("finetune", *tiny("undisturbed", write_task("classify"), **LONG))
    return outcome("undisturbed")


def test_sigterm_gives_75_and_the_same_command_ends_as_undisturbed():
    whole = undisturbed()
    codes = interrupted("stopped", tiny("stopped", "classify.json", **LONG), (5, 30, 61), signal.SIGTERM)
    assert codes == [75] * 3, codes
    assert outcome("stopped") == whole


def test_killed_run_ends_as_undisturbed():
    whole = undisturbed()
    codes = interrupted("killed", tiny("killed", "classify.json", **LONG), (1, 9, 26, 27, 50, 88), signal.SIGKILL)
    assert codes == [-9] * 6, codes
    assert outcome("killed") == whole
    with h5py.File("killed/results.h5", "r") as file:
        assert list(file["train/step"][:]) == list(range(1, 97))
        assert list(file["eval/classify/epoch"][:]) == list(range(1, 13))


def test_ranks_give_the_same_outcome():
    whole = undisturbed()
    run("finetune", *tiny("two", "classify.json", **LONG), ranks=2)
    assert outcome("two") == whole


def test_grid_of_runs_is_continued_and_done_once():
    task = write_task("classify")
    settings = dict(epochs=2, runs=2, learning_rates="[1e-3,5e-3]")
    run("finetune", *tiny("grid", task, epochs=2, runs=1, learning_rates="[1e-3]"))
    run("finetune", *tiny("grid", task, **settings))
    found = figures("grid")
    assert [(r["learning_rate"], r["seed"]) for r in found["runs"]] == [(1e-3, 1), (1e-3, 2), (5e-3, 1), (5e-3, 2)], found
    values = [r["metrics"]["accuracy"] for r in found["runs"]]
    assert found["best"] == found["runs"][values.index(max(values))], found
    with h5py.File("grid/results.h5", "r") as file:
        assert {len(column) for column in file["runs"].values()} == {4}
        assert list(file["runs/accuracy"][:]) == values
    # The kept weights are the best run's, and no other's.
    best = found["best"]
    assert os.listdir("grid/checkpoints") == [f"step-{best['step']:08d}"] and not glob.glob("grid/runs/*/checkpoints")
    run("finetune", *tiny("alone", task, epochs=2, seed=best["seed"], optimizer__lr=best["learning_rate"]))
    assert weights("alone") == weights("grid")
    before = contents("grid")
    text = run("finetune", *tiny("grid", task, **settings))
    after = contents("grid")
    assert "step " not in text, text  # nothing was trained
    assert {p for p in before if before[p] != after.get(p)} <= {"grid/results.h5"} and before.keys() == after.keys(), text


def test_done_run_of_other_settings_is_refused():
    task = write_task("classify")
    run("finetune", *tiny("done", task, epochs=1))
    before = contents("done")
    for change in (dict(epochs=2), dict(epochs=1, batch__sequences=8), dict(epochs=1, limit__train=16)):
        text = run("finetune", *tiny("done", task, **change), expect=2)
        assert text.count("error:") == 1 and "holds another run" in text, text
    assert contents("done") == before


def test_restart_leaves_nothing_of_before():
    task = write_task("classify")
    run("finetune", *tiny("anew", task, epochs=3, optimizer__lr=1e-3, seed=5))
    run("finetune", "--restart", *tiny("anew", task, epochs=3, seed=6))
    run("finetune", *tiny("new", task, epochs=3, seed=6))
    assert outcome("anew") == outcome("new")
    # The same run again with other settings, killed on its way: what was done before does not count as done.
    command = [ROFORMER, "finetune", "--restart", *tiny("anew", task, seed=6, **LONG)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not 0 < rows("anew") < 20:
        time.sleep(0.002)
    process.kill()
    assert process.wait(timeout=60) == -9
    run("finetune", *tiny("anew", task, seed=6, **LONG))
    with h5py.File("anew/results.h5", "r") as file:
        assert list(file["train/step"][:]) == list(range(1, 97))



def test_a_replay_has_the_numbers_of_the_run_and_writes_nothing():
    settings = tiny("replayed", "classify.json", epochs=2)
    write_task("classify")
    run("finetune", *settings)
    before = contents("replayed")
    with h5py.File(glob.glob("replayed/runs/*/results.h5")[0], "r") as file:
        loss = file["train/loss"][:]
    text = run("finetune", *settings, "--set", "replay=3", ranks=2)
    assert f"update 3: loss {loss[2]:.9g}," in text, text
    assert contents("replayed") == before
    assert "expected one run to replay" in run("finetune", *settings, "--set", "replay=3", "--set", "runs=2", expect=2)
    assert "finetune.replay: belongs to `finetune`" in run("clue", *sets(tasks='["classify.json"]', data=".", checkpoint="replayed", output="of_clue", finetune='{"replay":3}'), expect=2)


if __name__ == "__main__":
    main(globals())

#!/usr/bin/env python3
"""Encoders of other families through the command line: they learn, their bits do not depend on data ranks, they reshard and continue, all commands take them; what does not fit is
refused. And the comparisons of speed, residuals and phases, in small."""

import json
import os
import shutil
import signal
import subprocess
import time

import h5py

import harness
from harness import SOURCE, prepare, run, sets, state, tiny
from small_tasks import write_task

FAMILIES = ("bert", "roberta", "roformer")


def settings(folder, family, **more):
    return tiny(folder, **{"model__family": family, "model__residual_mode": "plain", "model__init_mode": "fixed", "model__max_position_embeddings": 40, **more})


def column(folder, name):
    with h5py.File(f"{folder}/results.h5") as f:
        return list(f[name][:])


def test_every_family_learns_and_data_ranks_do_not_change_a_bit():
    prepare()
    for family in FAMILIES:
        run("pretrain", *settings(family, family, steps=60, eval_every=60, checkpoint_every=60, optimizer__lr=2e-2))
        loss = column(family, "train/loss")
        assert sum(loss[-5:]) / 5 < loss[0] - 0.3, (family, loss)
        run("pretrain", *settings(f"{family}2", family, steps=60, eval_every=60, checkpoint_every=60, optimizer__lr=2e-2), ranks=2)
        assert state(family) == state(f"{family}2"), family
        assert column(f"{family}2", "train/loss") == loss


def test_a_run_stops_reshards_and_continues():
    prepare()
    run("pretrain", *settings("whole", "bert", steps=10))
    run("pretrain", *settings("parts", "bert", steps=5), ranks=2)
    run("pretrain", *settings("parts", "bert", steps=10))
    assert state("whole") == state("parts")
    run("pretrain", *settings("split", "bert", steps=10, parallel__tensor=2), ranks=4)
    for ours, theirs in zip(column("split", "train/loss"), column("whole", "train/loss")):
        assert abs(ours - theirs) < 1e-4 * theirs
    text = run("inspect", "whole")
    assert "embedding/position" in text and "mlm/bias" in text, text
    assert "all agree" in run("verify", "whole")
    run("encode", "--checkpoint", "whole", "--vocab", "vocab.txt", "--out", "hidden.h5", stdin="一二三\n".encode())
    assert h5py.File("hidden.h5")["hidden"].shape[1] == 64
    run("fill-mask", "--checkpoint", "whole", "--vocab", "vocab.txt", "--top", "3", stdin="一[MASK]三\n".encode())
    text = run("plan", *settings("plan", "bert"), *sets(plan__ranks=2, plan__machine=os.path.join(SOURCE, "inputs/machine/cpu_node.json")))
    assert "parameters" in text


def test_released_shapes_of_the_other_families_have_their_numbers_of_parameters():
    # BERT-base (Chinese): 102,267,648 with pooler and next-sentence head, which are not here; the MLM head's 590,592 + 1,536 + 21,128 are.
    for name, count in (("bert", 101_677_056 + 590_592 + 1_536 + 21_128), ("roformer", None)):
        text = run("plan", *sets(model=os.path.join(SOURCE, f"inputs/model/{name}_base.json"), plan__machine=os.path.join(SOURCE, "inputs/machine/cpu_node.json"), plan__ranks=1, batch__sequences=32))
        found = int(text.split(" parameters")[0].split()[-1])
        assert count is None or found == count, (name, found, count)


def test_what_does_not_fit_is_refused():
    prepare()
    for more, says in (({"model__family": "gpt"}, "expected one of \"roformer_v2\", \"roformer\", \"bert\", \"roberta\""), ({"model__norm": "group"}, "norm"), ({"model__biases": "yes"}, "biases"),
                       ({"model__hidden_act": "swish"}, "hidden_act"), ({"model__max_position_embeddings": 20}, "20 learned positions are too few for sequences of 32")):
        text = run("pretrain", *tiny("refused", **{"model__family": "bert", **more}), expect=2)
        assert text.count("error:") == 1 and says in text, text
    run("pretrain", *settings("other", "bert", steps=0, model__mlm_head="tied"))
    text = run("convert", "--from", "rf", "--to", "hf", "other", "out", expect=2)
    assert "other biases, norms, activation, positions or head than family bert has" in text and text.count("error:") == 1, text


def test_speeds_are_compared_in_rounds_that_continue():
    def compare(rounds, expect=0, *more):
        done = subprocess.run([os.path.join(SOURCE, "jobs/compare_speed.sh"), "--sizes", "tiny", "--lengths", "16", "--switches", "tiny:16", "--tokens", "64", "--rounds", str(rounds),
                               "--steps", "1", "--threads", "1", "--output", os.path.abspath("compared"), *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env={**os.environ, "ROFORMER": harness.ROFORMER}, timeout=240)
        assert done.returncode == expect, done.stdout
        return done.stdout

    text = compare(1)
    assert "10 arms, 1 rounds" in text and "10 measurements, 0 of them there" in text, text
    text = compare(2)
    assert "20 measurements, 10 of them there" in text, text
    assert "tiny x 16, roformer_v2:" in text and "times roberta" in text and "with GELU:" in text and "dense products:" in text, text
    page = open("compared/compare_speed.html", encoding="utf-8").read()
    assert "<svg" in page and "What the simplifications" in page
    assert "20 measurements, 20 of them there" in compare(2, 0, "--no-page")
    # Another machine's measurements on the same page; a file that is given twice.
    shutil.copy("compared/bench.h5", "other.h5")
    with h5py.File("other.h5", "r+") as file:
        file["bench/processor"][:] = "another processor"
    page_of = lambda *files: subprocess.run([os.path.join(SOURCE, "postprocess/compare_speed.py"), *files, "-o", "both.html"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    both = page_of("compared/bench.h5", "other.h5")
    assert both.returncode == 0 and "another processor" in open("both.html", encoding="utf-8").read() and both.stdout.count("times roberta") == 2, both.stdout
    assert "as a file before it" in page_of("compared/bench.h5", "compared/bench.h5").stdout
    assert "--families: gpt is none of" in compare(2, 2, "--families", "gpt roformer_v2")


def test_residuals_are_compared_by_runs_that_continue():
    prepare()

    def compare(*more, expect=0):
        done = subprocess.run([os.path.join(SOURCE, "jobs/compare_alpha.sh"), "--corpus", "corpus", "--vocab", "vocab.txt", "--depths", "2", "--rates", "5e-3", "--seeds", "1", "--warmups", "5",
                               "--updates", "10", "--hidden", "32", "--sequences", "8", "--length", "32", "--threads", "1", "--set", "evaluation.documents=20", "--output", "residuals", *more],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "ROFORMER": harness.ROFORMER}, timeout=240)
        assert done.returncode == expect, done.stdout
        return done.stdout

    text = compare()
    assert "5 runs of 10 updates" in text and "rate 0.005, 2 layers, ReZero:" in text and "(0 of 1 converge)" in text, text
    page = open("residuals/compare_alpha.html", encoding="utf-8").read()
    assert page.count("<svg") == 3 and "Updates by layer" in page and "depth-scaled, alpha over 5" in page
    first = state("residuals/depth-002/rezero/rate-0.005/seed-1")
    assert "2 runs of 10 updates" in compare("--residuals", "plain alpha")
    compare()
    assert state("residuals/depth-002/rezero/rate-0.005/seed-1") == first
    assert "--residuals: expected some of plain, alpha," in compare("--residuals", "plain warp", expect=2)
    assert "expected a multiple of 32" in compare("--hidden", "40", expect=2)


def test_phases_are_compared_by_runs_that_continue():
    prepare()
    with open("shape.json", "w", encoding="utf-8") as out:
        json.dump({"family": "roformer_v2", "hidden_act": "relu", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64, "type_vocab_size": 2,
                   "vocab_size": 400, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}, out)
    for kind in ("classify", "pair", "regress"):
        write_task(kind)

    def start(*more):
        words = [os.path.join(SOURCE, "jobs/compare_phases.sh"), "--corpus", "corpus", "--vocab", "vocab.txt", "--data", ".", "--model", "shape.json", "--updates", "6", "--supervised", "4",
                 "--sequences", "8", "--length", "32", "--mix", "classify.json pair.json regress.json", "--tasks", "classify.json", "--epochs", "2", "--rows", "16", "--seeds", "1", "--threads", "1",
                 "--set", "evaluation.documents=20", "--output", "phases", *more]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "ROFORMER": harness.ROFORMER}, start_new_session=True)

    def compare(*more, expect=0):
        process = start(*more)
        text = process.communicate(timeout=240)[0]
        assert process.returncode == expect, text
        return text

    def figures(text):
        return [line for line in text.splitlines() if line.startswith("RoFormer")]

    # Interrupted on its way.
    process = start()
    while process.poll() is None and not os.path.exists("phases/seed-1/mlm/trained/results.jsonl"):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and "the same command continues" in text, text
    text = compare()
    assert "9 runs of 6 + 4 updates of 8 x 32 and 2 epochs" in text and ", 0 of them there" not in text and "seed-1/tasks_normalised/tuned/classify: accuracy" in text, text
    first, trained = figures(text), {"roformer": 10, "mlm": 10, "tasks": 4, "tasks_normalised": 4}
    assert len(first) == 4 and len({line.split("held-out MLM loss ")[1] for line in first}) == 4, text
    states = [state(f"phases/seed-1/{arm}/trained") for arm in trained]
    assert len(set(states)) == 4
    for arm, updates in trained.items():
        assert column(f"phases/seed-1/{arm}/trained", "train/step") == list(range(1, updates + 1))

    # Made once more without an interruption it is the same; the others stay, and a task may be added.
    shutil.rmtree("phases/seed-1/mlm/trained")
    text = compare("--tasks", "classify.json pair.json")
    assert "13 runs" in text and " 8 of them there" in text and "5/5" in text, text
    assert [state(f"phases/seed-1/{arm}/trained") for arm in trained] == states
    assert [line.split(", pair")[0] for line in figures(text)] == [line.split(", mean")[0] for line in first], text

    # Drawn anew from what is stored.
    page = open("phases/compare_phases.html", encoding="utf-8").read()
    assert page.count("<svg") == 1 and "pair, accuracy" in page and "most frequent label" in page, page
    again = subprocess.run([os.path.join(SOURCE, "postprocess/compare_phases.py"), "phases", "-o", "anew.html"], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert figures(again) == figures(text) and open("anew.html", encoding="utf-8").read().split("<svg")[0] == page.split("<svg")[0], again

    for more, says in ((("--updates", "7"), "--updates: phases holds runs with 6, not 7"), (("--tasks", "nothing"), "inputs/tasks/nothing.json is not there"),
                       (("--length", "16"), "--mix: sequences of classify pair regress are longer than --length 16"), (("--model", "vocab.txt"), "--model: vocab.txt cannot be read")):
        text = compare(*more, expect=2)
        assert text.count("compare_phases: ") == 1 and says in text, text


if __name__ == "__main__":
    harness.main(globals())

#!/usr/bin/python3
"""The commands from outside: help, defaults, inputs and scripts that hold together, inspect on every kind of file, signals under mpirun."""

import glob
import json
import os
import re
import signal
import subprocess
import time

from harness import ROFORMER, SOURCE, main, prepare, run, sets, tiny

COMMANDS = "build-vocab build-corpus tokenize pretrain multitask finetune clue predict encode fill-mask plan convert inspect verify bench".split()


def test_help_and_version_of_every_command():
    text = run("--help")
    for command in COMMANDS:
        assert f"\n  {command} " in text, text
        assert run(command, "--help").startswith(f"usage: roformer {command} ")
        assert run(command, "--version") == run("--version")
    assert "usage:" in run(expect=2)
    assert "did you mean" in run("pretrian", expect=2)


def test_defaults_are_an_input_again():
    for command in ("build-vocab", "build-corpus", "pretrain", "multitask", "finetune", "clue", "plan", "bench"):
        open("defaults.json", "w", encoding="utf-8").write(run(command, "--defaults"))
        assert json.load(open("defaults.json", encoding="utf-8"))
        if command not in ("plan", "bench"):  # every key is known; what is missing is a place to write
            text = run(command, "defaults.json", expect=2)
            assert "unknown" not in text and "defaults.json: " in text, text


# A small model on the test's corpus; all other keys, and the model file's, are the input's own.
SMALL = dict(hidden_size=64, num_attention_heads=4, num_hidden_layers=1, intermediate_size=64, vocab_size=400)


def inputs(pattern):
    prepare()
    if not os.path.exists("inputs"):
        os.symlink(os.path.join(SOURCE, "inputs"), "inputs")
    found = sorted(glob.glob(f"inputs/{pattern}"))
    assert found, pattern
    return found


def write_passages():
    """A task of one's own, on passages as the quickstart's task has them."""
    labels = json.load(open("inputs/quickstart_task.json", encoding="utf-8"))["labels"]
    lines = open("text.txt", encoding="utf-8").read().splitlines()
    with open("text.jsonl", "w", encoding="utf-8") as out:
        for i, line in enumerate(lines[:120]):
            out.write(json.dumps({"text": line, "source": labels[i // 2 % len(labels)]}) + "\n")
    own = {"name": "own", "kind": "classify", "train": "text.jsonl", "hashed": {"dev": 0.3}, "input": ["{text}"], "label": "{source}",
           "labels": labels}
    json.dump(own, open("own.json", "w", encoding="utf-8"))


def test_inputs_of_pretrain_are_read():
    for path in inputs("pretrain_*.json"):
        given = json.load(open(path, encoding="utf-8"))["model"]
        file = given["file"] if isinstance(given, dict) else given
        run("pretrain", path, *sets(model=json.dumps(dict(SMALL, file=file)), corpus="corpus", vocab="vocab.txt", checkpoint="", output=f"of-{os.path.basename(path)}", steps=0))


def test_inputs_of_build_corpus_are_read():
    run("build-corpus", *inputs("build_corpus.json"), *sets(text="text.txt", vocab="vocab.txt", output="of-build", segmenter__name="none"))


def test_inputs_of_supervised_commands_are_read():
    multitask, finetune = inputs("multitask_*.json"), inputs("finetune_*.json")
    listed = sorted(["inputs/mlm_task.json", *inputs("tasks/*.json")])
    write_passages()
    model = json.dumps(dict(SMALL, file="inputs/model/tiny.json"))
    for path in multitask:
        assert sorted(json.load(open(path, encoding="utf-8"))["tasks"]) == listed, path
        # The one task file of these that needs no data, beside one of the test's.
        run("multitask", path, *sets(checkpoint="", model=model, corpus="corpus", vocab="vocab.txt", data=".", tasks='["inputs/mlm_task.json", "own.json"]',
                                     output=f"of-{os.path.basename(path)}", steps=0))
    for path in finetune:
        task = json.load(open(path, encoding="utf-8"))["task"]
        assert os.path.exists(task), path
        if task != "inputs/quickstart_task.json":  # others' data no test has
            task = "own.json"
        run("finetune", path, *sets(checkpoint="", model=model, vocab="vocab.txt", data=".", output=f"of-{os.path.basename(path)}", epochs=1, runs=1,
                                    task=task))
    # Every key of it is read before it is told what no test has.
    text = run("clue", *inputs("clue.json"), *sets(data=".", output="clue"), expect=2)
    assert "unknown" not in text and "inputs/clue.json: " in text, text
    known = {*inputs("pretrain_*.json"), *multitask, *finetune, *inputs("clue.json"), "inputs/build_corpus.json", "inputs/mlm_task.json", "inputs/quickstart_task.json"}
    assert {*inputs("*.json")} == known, "an input that no test reads"


def test_plan_of_every_input_on_every_machine():
    machines = inputs("machine/*.json")
    for path in inputs("pretrain_*.json"):
        for machine in machines:
            if path.endswith("large.json") and "cpu_node" in machine:
                continue  # 23 GiB
            text = run("plan", path, *sets(plan__machine=machine, plan__ranks=1))
            assert "bound by " in text and "\n* " in text and "parameters" in text, text
    for path in inputs("multitask_*.json"):
        size = path.split("_")[1]
        assert "bound by " in run("plan", path, *sets(model=f"inputs/model/{size}", plan__ranks=1))
        assert "name its model" in run("plan", path, expect=2)
    run("plan", "inputs/pretrain_large.json", "--json", "plan.json", *sets(plan__ranks=16))
    plan = json.load(open("plan.json", encoding="utf-8"))
    assert [(s["tensor"], s["data"]) for s in plan["splits"]] == [(1, 16), (2, 8), (4, 4), (8, 2), (16, 1)] and plan["parameters"] == 314279936
    # Two nodes: half the time between failures. 12 s to write, a failure every 250 h: √(2 · 12 · 900000) s.
    measured = ["inputs/pretrain_large.json", *sets(plan__ranks=16, plan__machine__file="inputs/machine/h100x8.json", plan__machine__node_mtbf_hours=500)]
    text = run("plan", *measured, *sets(plan__checkpoint_seconds=12))
    assert "checkpoint 3.51 GiB in 12 s, a failure every 250 h: write one every 1:17:27, checkpoint_every=" in text, text
    assert "plan.checkpoint_seconds" in run("plan", *measured, *sets(plan__checkpoint_seconds=-1), expect=2)
    for split in plan["splits"]:
        assert split["checkpoints"]["interval"] > split["checkpoints"]["write_seconds"] > 0, split
        kinds = split["memory_bytes"]
        assert sum(v for k, v in kinds.items() if k not in ("total", "limit")) == kinds["total"], kinds
        assert split["bound"] in ("compute", "memory", "network", "latency") and split["fits"]


def test_plan_says_what_would_fit():
    """What it names fits; an input that cannot be split, or machines that are none, are usage errors."""
    inputs("machine/*.json")
    small = ["inputs/pretrain_large.json", *sets(plan__machine__file="inputs/machine/h100x8.json", plan__machine__memory_gib=8)]
    text = run("plan", *small, expect=2)
    assert "does not fit" in text and "error: inputs/pretrain_large.json: a rank needs " in text, text
    remedies = re.findall(r"((?:[a-z_.]+=\w+ )+)\(", text[text.index("would"):])
    assert remedies, text
    for settings in remedies:
        run("plan", *small, *(word for setting in settings.split() for word in ("--set", setting)))
    text = run("plan", "inputs/pretrain_large.json", *sets(plan__ranks=64), expect=2)
    assert "batch.lanes = 16 does not divide over 64 data ranks" in text and "batch.lanes=64" in text, text
    assert "bound by" in run("plan", "inputs/pretrain_large.json", *sets(plan__ranks=64, batch__lanes=64))
    machine = json.load(open("inputs/machine/h100x8.json", encoding="utf-8"))
    for key, value, says in (("memory_gb_per_s", -1, "bad.json: memory_gb_per_s: expected a number above 0, found -1"),
                             ("memory_gbps", 1, "bad.json: unknown key \"memory_gbps\""), ("launch_us", None, "bad.json: launch_us: missing")):
        bad = {k: v for k, v in {**machine, key: value}.items() if v is not None}
        json.dump(bad, open("bad.json", "w", encoding="utf-8"))
        text = run("plan", "inputs/pretrain_base.json", *sets(plan__machine="bad.json"), expect=2)
        assert says in text and text.count("error:") == 1, text
    assert "device" in run("plan", "inputs/pretrain_base.json", *sets(device="cpu"), expect=2)
    assert "plan.length" in run("plan", "inputs/pretrain_base.json", *sets(plan__length=1), expect=2)
    assert "one rank" in run("plan", "inputs/pretrain_base.json", ranks=2, expect=2)


def test_scripts_parse():
    scripts = [*glob.glob(f"{SOURCE}/jobs/*.sh"), *glob.glob(f"{SOURCE}/jobs/*.slurm"), f"{SOURCE}/tests/run.sh", f"{SOURCE}/env/debian.sh", f"{SOURCE}/.ci/run"]
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)


def test_inspect_knows_every_kind_of_file():
    prepare()
    run("pretrain", *tiny("seen"), ranks=2)
    run("encode", "--checkpoint", "seen", "--out", "hidden.h5", stdin=open("text.txt", "rb").read()[:3000].rpartition(b"\n")[0])
    newest = "seen/checkpoints/step-00000010"
    for path, says in (("corpus", ["corpus shard", "documents 300"]), (newest, ["digest weights", "digest state", "tensor "]),
                       (f"{newest}/checkpoint.h5", ["digest state"]), (f"{newest}/part-000-00000.h5", ["checkpoint part", "dataset "]),
                       ("seen", ["digest state", "table /train: 10 rows"]), ("seen/results.h5", ["table /eval/mlm: 2 rows"]),
                       ("hidden.h5", ["hidden states", "dataset hidden [", ", 64]"])):
        text = run("inspect", path)
        assert all(part in text for part in says), text
    assert "not HDF5" in run("inspect", "vocab.txt", expect=2)


def test_encode_leaves_nothing_that_is_not_whole():
    prepare()
    run("pretrain", *tiny("learnt"))
    with open("text.txt", "rb") as file:
        lines = file.read()[:9000].rpartition(b"\n")[0]
    outputs = []
    for ranks in (1, 2, 3):
        run("encode", "--checkpoint", "learnt", "--out", f"hidden-{ranks}.h5", stdin=lines, ranks=ranks)
        with open(f"hidden-{ranks}.h5", "rb") as file:
            outputs.append(file.read())
    assert outputs[0] == outputs[1] == outputs[2]
    for ranks in (1, 2):
        assert "--out: the folder nowhere of nowhere/hidden.h5 does not exist" in run("encode", "--checkpoint", "learnt", "--out", "nowhere/hidden.h5", stdin=lines, ranks=ranks, expect=2)
    # A disk that takes 64 KiB.
    done = subprocess.run(["bash", "-c", "ulimit -f 64; trap '' XFSZ; exec \"$0\" encode --checkpoint learnt --out hidden.h5", ROFORMER], input=lines, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    assert done.returncode == 1 and b"cannot write hidden.h5.partial: File too large" in done.stdout, done.stdout
    assert not glob.glob("hidden.h5*")


def test_lines_in_a_file_are_plain():
    prepare()
    text = run("pretrain", *tiny("plain"))
    assert "step 5/10 " in text and "\r" not in text and "\033" not in text
    assert "\033" not in open("plain/log.txt", encoding="utf-8").read()


def test_a_signal_to_mpirun_leaves_a_checkpoint():
    """mpirun passes SIGUSR1 on and returns the ranks' 75. At SIGTERM it ends the ranks by that signal but returns 1 itself."""
    prepare()
    for number in (signal.SIGUSR1, signal.SIGTERM):
        folder = f"told{int(number)}"
        command = ["mpirun", "-n", "2", ROFORMER, "pretrain", *tiny(folder, steps=1000000, checkpoint_every=1000000, eval_every=1000000)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not os.path.exists(f"{folder}/results.jsonl") or os.path.getsize(f"{folder}/results.jsonl") < 300:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        code = process.wait(timeout=60)
        if number == signal.SIGUSR1:
            assert code == 75, code
            assert len([n for n in os.listdir(f"{folder}/checkpoints") if not n.endswith(".partial")]) == 1
        assert code != 0
        run("verify", folder, expect=0 if os.listdir(f"{folder}/checkpoints") else 2)


if __name__ == "__main__":
    main(globals())

#!/usr/bin/python3
"""The commands from outside: help, defaults, inputs and scripts that hold together, inspect on every kind of file, signals under mpirun."""

import glob
import json
import os
import signal
import subprocess
import time

from harness import ROFORMER, SOURCE, main, prepare, run, sets, tiny

COMMANDS = "build-vocab build-corpus tokenize pretrain encode fill-mask inspect verify bench".split()


def test_help_and_version_of_every_command():
    text = run("--help")
    for command in COMMANDS:
        assert f"\n  {command} " in text, text
        assert run(command, "--help").startswith(f"usage: roformer {command} ")
        assert run(command, "--version") == run("--version")
    assert "usage:" in run(expect=2)
    assert "did you mean" in run("pretrian", expect=2)


def test_defaults_are_an_input_again():
    for command in ("build-vocab", "build-corpus", "pretrain", "bench"):
        open("defaults.json", "w", encoding="utf-8").write(run(command, "--defaults"))
        assert json.load(open("defaults.json", encoding="utf-8"))
        if command in ("build-vocab", "build-corpus", "pretrain"):  # every key is known; what is missing is a place to write
            text = run(command, "defaults.json", expect=2)
            assert "unknown" not in text and "defaults.json: " in text, text


def test_every_input_of_the_project_is_read():
    prepare()
    if not os.path.exists("inputs"):
        os.symlink(os.path.join(SOURCE, "inputs"), "inputs")
    for path in sorted(glob.glob("inputs/pretrain_*.json")):
        given = json.load(open(path, encoding="utf-8"))["model"]
        file = given["file"] if isinstance(given, dict) else given
        # A small model on the test's corpus; all other keys, and the model file's, are the input's own.
        model = dict(file=file, hidden_size=64, num_attention_heads=4, num_hidden_layers=1, intermediate_size=64, vocab_size=400)
        run("pretrain", path, *sets(model=json.dumps(model), corpus="corpus", vocab="vocab.txt", output=f"of-{os.path.basename(path)}", steps=0))

    for command in ("multitask", "finetune", "clue"):  # every key is known; what is missing is the checkpoint to begin from
        found = sorted(glob.glob(f"inputs/{command}*.json"))
        assert found, command
        for path in found:
            text = run(command, path, expect=2)
            assert "unknown" not in text and "checkpoint" in text, text


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
                       ("seen", ["digest state", "table /train: 10 rows"]), ("seen/results.h5", ["table /eval/mlm: 3 rows"]),
                       ("hidden.h5", ["hidden states", "dataset hidden [", ", 64]"])):
        text = run("inspect", path)
        assert all(part in text for part in says), text
    assert "not HDF5" in run("inspect", "vocab.txt", expect=2)


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

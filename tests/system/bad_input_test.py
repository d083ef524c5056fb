#!/usr/bin/python3
"""Bad input: the exit code, one message that names the place, nothing lost on disk."""

import os
import shutil
import subprocess
import time

from harness import ROFORMER, main, prepare, run, sets, state, tiny


def refused(*words, code=2, ranks=1, says=(), stdin=None):
    text = run(*words, expect=code, ranks=ranks, stdin=stdin)
    for part in says:
        assert part in text, f"expected {part!r} in:\n{text}"
    return text


def test_usage():
    refused("pretain", says=["unknown command", "pretrain"])
    refused("pretrain", "--sett", "a=1", says=["unknown option --sett"])
    refused("pretrain", "nowhere.json", says=["nowhere.json"])


def test_unknown_key_suggests_the_nearest():
    refused("pretrain", "--set", "batch.sequence=4", says=["batch.sequence", "did you mean \"sequences\"?"])


def test_json_errors_name_file_and_line():
    with open("broken.json", "w") as file:
        file.write('{\n  "steps": 3,\n  "seed" 4\n}\n')
    refused("pretrain", "broken.json", says=["broken.json:3:"])
    with open("twice.json", "w") as file:
        file.write('{"steps": 3, "steps": 4}')
    refused("pretrain", "twice.json", says=["twice.json", "twice"])


def test_wrong_types_and_impossible_values():
    prepare()
    refused("pretrain", *tiny("x", steps='"many"'), says=["steps", "an integer"])
    refused("pretrain", *tiny("x", steps=-1), says=["steps"])
    refused("pretrain", *tiny("x", batch__max_length=2), says=["batch.max_length"])
    refused("pretrain", *tiny("x", optimizer__name="sgd"), says=["optimizer.name", "lamb"])
    refused("pretrain", *tiny("x", device="cuda"), says=["device", "CUDA"])
    refused("pretrain", *tiny("x", dtype="f8"), says=["dtype"])
    refused("pretrain", *tiny("x", schedule__lr="[]"), says=["schedule.lr", "at least one"])
    refused("pretrain", *tiny("x", checkpoint="absent"), says=["checkpoint", "absent", "neither a checkpoint nor a folder"])
    refused("pretrain", *tiny("x", model__num_attention_heads=5), says=["5 heads do not divide"])
    assert not os.path.exists("x")


def test_missing_empty_and_truncated_corpus():
    prepare()
    refused("pretrain", *tiny("x", corpus="absent"), says=["corpus", "absent does not exist"])
    os.makedirs("hollow", exist_ok=True)
    refused("pretrain", *tiny("x", corpus="hollow"), says=["hollow holds no corpus shard"])
    os.makedirs("cut", exist_ok=True)
    for name in os.listdir("corpus"):
        data = open(f"corpus/{name}", "rb").read()
        open(f"cut/{name}", "wb").write(data[: len(data) // 2] if name.endswith(".h5") else data)
    refused("pretrain", *tiny("x", corpus="cut"), says=["truncated", "cut/corpus-"])
    assert refused("pretrain", *tiny("x", corpus="cut"), ranks=2, says=["truncated"]).count("error:") == 1


def test_incomplete_corpus():
    prepare()
    shutil.copytree("corpus", "begun")
    os.remove("begun/corpus.json")
    os.makedirs("begun/.partial")
    refused("pretrain", *tiny("x", corpus="begun"), says=["begun is not complete"])
    shutil.copytree("corpus", "lacking")
    os.remove("lacking/corpus.json")
    for end in ("", ".digest"):
        os.rename(f"lacking/corpus-00000-of-00001.h5{end}", f"lacking/corpus-00001-of-00002.h5{end}")
    refused("pretrain", *tiny("x", corpus="lacking"), says=["lacking holds 1 of the 2 shards"])


def test_ranks_say_a_failure_once():
    prepare()
    for settings in (tiny("x", batch__lanes=0), tiny("x", corpus="absent"), tiny("vocab.txt/x")):
        assert refused("pretrain", *settings, ranks=4).count("error:") == 1
    text = refused("pretrain", *tiny("nan2", optimizer__lr=1e30, schedule__lr="[[0,1]]"), code=1, ranks=2)
    assert text.count("error:") == 1 and "on rank " in text, text


def test_read_only_output():
    prepare()
    os.makedirs("sealed", exist_ok=True)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "sealed"], stderr=subprocess.DEVNULL).returncode != 0:
        print("skip test_read_only_output: needs the right to mount")
        return
    try:
        refused("pretrain", *tiny("sealed/x"), says=["output", "sealed/x", "Read-only"])
    finally:
        subprocess.run(["umount", "sealed"])


def test_other_vocabulary():
    prepare()
    lines = open("vocab.txt", encoding="utf-8").read()
    open("other.txt", "w", encoding="utf-8").write(lines + "another\n")
    refused("pretrain", *tiny("x", vocab="other.txt"), says=["other.txt", "not the vocabulary"])
    open("doubled.txt", "w", encoding="utf-8").write(lines + lines.splitlines()[110] + "\n")
    refused("pretrain", *tiny("x", vocab="doubled.txt"), says=["doubled.txt"])


def test_ranks_that_do_not_divide():
    prepare()
    refused("pretrain", *tiny("x", batch__lanes=4), ranks=3, says=["batch.lanes = 4", "3 data ranks"])
    refused("pretrain", *tiny("x", parallel__tensor=2), ranks=3, says=["parallel.tensor = 2", "3 ranks"])
    refused("pretrain", *tiny("x", parallel__tensor=3, batch__lanes=1), ranks=3, says=["4 heads do not divide over 3"])


def test_output_of_another_model():
    prepare()
    run("pretrain", *tiny("mine", steps=5))
    before = state("mine")
    refused("pretrain", *tiny("mine", model__num_hidden_layers=3), says=["num_hidden_layers", "2 there, 3 here", "--restart"])
    assert state("mine") == before
    run("pretrain", *tiny("mine", model__num_hidden_layers=3, steps=5), "--restart")
    assert state("mine") != before


def test_unwritable_output():
    prepare()
    open("file", "w").close()
    refused("pretrain", *tiny("file/x"), says=["output", "file/x"])


def test_loss_that_is_not_finite_stops_with_step_and_tensor():
    prepare()
    text = refused("pretrain", *tiny("nan", optimizer__lr=1e30, schedule__lr="[[0,1]]"), code=1, says=["update", "not finite"])
    assert "layer_" in text or "embedding" in text, text


def test_disk_that_fills_under_the_results():
    """The journal meets the full disk first; the checkpoint before stays, no other is begun without the rows, and the run continues once
    there is room."""
    prepare()
    os.makedirs("narrow", exist_ok=True)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", "narrow"], stderr=subprocess.DEVNULL).returncode != 0:
        print("skip test_disk_that_fills_under_the_results: needs the right to mount")
        return
    try:
        run("pretrain", *tiny("narrow/run", steps=5))
        before = state("narrow/run")
        command = [ROFORMER, "pretrain", *tiny("narrow/run", steps=1000000, checkpoint_every=100, checkpoint_failures_allowed=1, eval_every=1000000)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        size = os.path.getsize("narrow/run/results.jsonl")
        while process.poll() is None and os.path.getsize("narrow/run/results.jsonl") <= size:
            time.sleep(0.02)
        with open("narrow/ballast", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        text = process.communicate(timeout=120)[0].decode()
        assert process.returncode == 1, f"exit code {process.returncode}\n{text}"
        assert "No space left" in text and "narrow/run/results" in text and text.count("error:") == 1, text
        assert state("narrow/run") == before
        os.remove("narrow/ballast")
        run("pretrain", *tiny("narrow/run", steps=10))
        run("pretrain", *tiny("wide", steps=10))
        assert state("narrow/run") == state("wide")
    finally:
        subprocess.run(["umount", "narrow"])


def test_full_disk_keeps_the_checkpoint_before():
    prepare()
    os.makedirs("small", exist_ok=True)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", "small"], stderr=subprocess.DEVNULL).returncode != 0:
        print("skip test_full_disk_keeps_the_checkpoint_before: needs the right to mount")
        return
    try:
        run("pretrain", *tiny("small/run", steps=5, checkpoint_every=5))
        before = state("small/run")
        with open("small/ballast", "wb", buffering=0) as file:
            while True:
                try:
                    file.write(b"x" * 4096)
                except OSError:
                    break
        refused("pretrain", *tiny("small/run", steps=10), code=2, says=["small/run", "No space left"])  # no room for the lock
        os.truncate("small/ballast", os.path.getsize("small/ballast") - 65536)  # room for all but a checkpoint
        text = refused("pretrain", *tiny("small/run", steps=10), code=1)
        assert "small/run" in text and "No space left" in text, text
        assert state("small/run") == before
    finally:
        subprocess.run(["umount", "small"])


def test_one_rank_dying_ends_all():
    prepare()
    command = ["mpirun", "-n", "2", ROFORMER, "pretrain", *tiny("dying", steps=1000000, eval_every=1000000, checkpoint_every=1000000)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not os.path.exists("dying/results.jsonl") or os.path.getsize("dying/results.jsonl") == 0:
        assert process.poll() is None
    child = subprocess.run(["pgrep", "-f", "-n", "roformer pretrain.*output=dying"], stdout=subprocess.PIPE).stdout.split()[0]
    os.kill(int(child), 9)
    assert process.wait(timeout=10) != 0


def test_text_of_tokenize():
    prepare()
    refused("tokenize", says=["needs --vocab"])
    refused("tokenize", "--vocab", "vocab.txt", stdin=b"", says=["no text on standard input"])
    refused("tokenize", "--vocab", "vocab.txt", stdin=b"good\nbad \xff\n", says=["line 2", "byte 4"])
    text = run("tokenize", "--vocab", "vocab.txt", stdin=("字" * 350000 + "\n").encode())
    assert len(text.split()) == 350002


def test_bad_text_of_build_corpus():
    prepare()
    open("bad.jsonl", "wb").write(b'{"text": "\xe4\xb8\xad"}\n{"text": 3}\n')
    refused("build-corpus", *sets(text="bad.jsonl", vocab="vocab.txt", output="bad", segmenter__name="none"), says=["bad.jsonl:2:", "not a string"])
    text = run("build-corpus", *sets(text="bad.jsonl", vocab="vocab.txt", output="bad", segmenter__name="none", max_bad_lines=1))
    assert "1 bad lines" in text, text
    open("bad.txt", "wb").write("好\n".encode() + b"\xc3\x28\n")
    refused("build-corpus", *sets(text="bad.txt", vocab="vocab.txt", output="bad2", segmenter__name="none"), says=["bad.txt:2:", "UTF-8"])
    refused("build-corpus", *sets(text="nothing*", vocab="vocab.txt", output="bad3"), says=["nothing*"])


if __name__ == "__main__":
    main(globals())

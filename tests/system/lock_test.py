#!/usr/bin/python3
"""One run at a time in an output folder: who holds it is named, what a killed run left is taken over, what another host left is explained."""

import os
import shutil
import signal
import socket
import subprocess
import time

from harness import ROFORMER, main, prepare, run, sets, state, tiny


def lock(folder, host=None, pid=None, job="-", age=7500):
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/.lock", "w") as file:
        file.write(f"roformer-lock 1\nhost {host or socket.gethostname()}\npid {pid or dead_process()}\njob {job}\nsince {int(time.time()) - age}\n")


def dead_process():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def running(folder, *words):
    """A run that has begun its updates."""
    process = subprocess.Popen([*words, ROFORMER, "pretrain", *tiny(folder, steps=1000000, eval_every=1000000, checkpoint_every=1000000)],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not os.path.exists(f"{folder}/results.jsonl") or os.path.getsize(f"{folder}/results.jsonl") == 0:
        assert process.poll() is None, process.stdout.read().decode()
        time.sleep(0.02)
    return process


def test_second_run_in_a_folder_is_refused_and_the_first_goes_on():
    prepare()
    first = running("shared")
    try:
        for ranks, more in ((1, []), (2, []), (1, ["--restart"])):
            text = run("pretrain", *tiny("shared"), *more, ranks=ranks, expect=2)
            assert text.count("error:") == 1 and "shared is in use by process" in text and str(first.pid) in text and socket.gethostname() in text, text
    finally:
        first.send_signal(signal.SIGTERM)
        text = first.communicate(timeout=60)[0].decode()
    assert first.returncode == 75, text
    assert not os.path.exists("shared/.lock")


def test_lock_of_a_killed_run_is_taken_over_with_a_note():
    prepare()
    first = running("killed")
    first.kill()
    first.wait()
    assert f"pid {first.pid}" in open("killed/.lock").read()
    text = run("pretrain", *tiny("killed"))
    assert f"killed was left without notice by process {first.pid}" in text and text.count("taken over") == 1, text
    assert not os.path.exists("killed/.lock")


def test_age_and_job_are_named():
    prepare()
    lock("aged", job="4711")
    text = run("pretrain", *tiny("aged"))
    assert "Slurm job 4711, for 2 h; taken over" in text, text


def test_lock_of_another_host_is_explained():
    prepare()
    lock("far", host="n0815", job="4711")
    text = run("pretrain", *tiny("far"), expect=2, env={"SLURM_JOB_ID": "4712"})
    assert "far is held by process" in text and "n0815" in text and "remove far/.lock" in text and text.count("error:") == 1, text
    assert os.listdir("far") == [".lock"]
    # The same batch job on another node: it cannot run twice.
    assert "taken over" in run("pretrain", *tiny("far"), env={"SLURM_JOB_ID": "4711"})
    lock("far2", host="n0815")
    os.remove("far2/.lock")
    run("pretrain", *tiny("far2"))


def test_torn_lock_is_no_obstacle():
    prepare()
    os.makedirs("torn")
    for text in ("", "roformer-lock 1\nhost", "\0\0\0"):
        open("torn/.lock", "w").write(text)
        run("pretrain", *tiny("torn", steps=2))


def test_corpus_is_built_by_one_at_a_time():
    prepare()
    words = sets(text="text.txt", vocab="vocab.txt", output="built", segmenter__name="none")
    lock("built", host="n0815")
    text = run("build-corpus", *words, expect=2, ranks=2)
    assert "built is held by" in text and text.count("error:") == 1, text
    lock("built")
    assert "taken over" in run("build-corpus", *words, ranks=2)
    assert not os.path.exists("built/.lock")


if __name__ == "__main__":
    main(globals())

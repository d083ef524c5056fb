#!/usr/bin/env python3
"""A rank that does not come to a collective is named in time, whichever collective it is and whichever rank, and all ranks end. HANG: the program (hang.cpp)."""

import os
import re
import signal
import subprocess
import sys
import time

import harness
from harness import prepare, tiny

HANG = os.environ["HANG"]


def hang(kind, gone, how="stopped", ranks=3):
    begin = time.monotonic()
    done = subprocess.run(["mpirun", "-n", str(ranks), HANG, f"watch-{kind}-{gone}-{how}", kind, str(gone), how], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=60)
    return done.returncode, done.stdout, time.monotonic() - begin


def test_a_stopped_rank_is_named_in_every_collective():
    for kind, gone in (("barrier", 1), ("all_reduce", 2), ("all_gather", 0), ("broadcast", 1), ("all_to_all", 2)):
        code, text, seconds = hang(kind, gone)
        assert code != 0 and "] done" not in text, text
        # Two seconds of limit, one of grace, two for the ranks that do not speak, and starting and ending MPI.
        assert seconds < 15, seconds
        # mpirun wakes the stopped rank to end it, which may then speak too.
        assert text.split("ending all ranks")[0].count("watchdog: update 10 is not done after") == 1, text
        assert re.search(rf"did not arrive: rank {gone} \(place {gone}, no answer", text), text
        shown = "(broadcast|barrier)" if kind == "broadcast" else kind  # its root does not wait, and goes on to a barrier
        assert re.search(rf"rank {(gone + 1) % 3} .*waits since [\d.]+ s in {shown} number \d+ of ranks 0, 1 and 2", text), text


def test_a_rank_that_works_elsewhere_is_told_from_a_stopped_one():
    code, text, _ = hang("all_reduce", 1, "busy")
    assert code != 0, text
    assert "3 of 3 ranks answer" in text, text
    assert re.search(r"did not arrive: rank 1 \(place 1, runs but is outside the collective\)$", text, re.M), text


def test_a_run_names_the_stopped_rank_and_goes_on_with_it():
    """The whole program, without `abort`: once the rank is let go the run ends as if nothing had been."""
    prepare()
    command = ["mpirun", "-n", "2", harness.ROFORMER, "pretrain", *tiny("stopped", steps=400, checkpoint_every=400, eval_every=400, watchdog__seconds=1, watchdog__factor=5)]
    with open("stopped.log", "w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while not os.path.exists("stopped/results.jsonl") or os.path.getsize("stopped/results.jsonl") < 2000:
            assert process.poll() is None, open("stopped.log").read()
            time.sleep(0.02)
        workers = subprocess.run(["pgrep", "-P", str(process.pid)], stdout=subprocess.PIPE, text=True).stdout.split()
        assert len(workers) == 2, workers
        second = next(int(w) for w in workers if b"OMPI_COMM_WORLD_RANK=1" in open(f"/proc/{w}/environ", "rb").read().split(b"\0"))
        os.kill(second, signal.SIGSTOP)
        for _ in range(300):
            time.sleep(0.1)
            if "did not arrive" in open("stopped.log").read():
                break
        os.kill(second, signal.SIGCONT)
        assert process.wait(timeout=120) == 0
    text = open("stopped.log").read()
    assert re.search(rf"did not arrive: rank 1 \(\S+, process {second}, no answer", text), text
    assert "went on" in text and "done: step 400" in text, text
    assert not [name for name in os.listdir("stopped/watchdog") if name.endswith(".json")]


if __name__ == "__main__":
    harness.main(globals())

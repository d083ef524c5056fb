#!/usr/bin/python3
"""A signal to any one rank ends the run with 75 and a durable checkpoint, within an update and five seconds: measured at every rank in turn.

    stop_test.py                        what ctest runs: a tiny model on two ranks
    stop_test.py --model FILE [--ranks 2] [--rounds 5] [--sequences 16] [--length 32]    a table of another model's times"""

import argparse
import glob
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("RF_SOURCE_DIR", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
os.environ.setdefault("ROFORMER", os.path.join(os.environ["RF_SOURCE_DIR"], "build/cpu-release/roformer"))

from harness import ROFORMER, main, prepare, run, sets, tiny  # noqa: E402
from kill_campaign import checkpoints, rank_pids, rows  # noqa: E402

FOREVER = dict(steps=100000, checkpoint_every=100000, eval_every=100000)


def update_seconds(folder):
    """Wall time of each update, the first left out (it finds its memory); the column `seconds` of /train."""
    with open(f"{folder}/results.jsonl", encoding="utf-8") as lines:
        rows_there = [json.loads(line) for line in lines if line.endswith("\n")]
    return [row["row"][8] for row in rows_there if row["table"] == "train"][1:]


def stop(folder, settings, ranks, rank, which):
    """Starts a run, sends one rank a signal in the middle of its fourth update or later; returns (seconds to the published checkpoint, seconds to the
    exit, longest update)."""
    command = ["mpirun", "-n", str(ranks), ROFORMER, "pretrain", *settings]
    with open(f"{folder}.out", "w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        while len(rows(folder)) < 4 and process.poll() is None:
            time.sleep(0.01)
        pids = rank_pids(process, ranks)
        assert len(pids) == ranks, open(f"{folder}.out", encoding="utf-8").read()
        os.kill(pids[rank], which)
        begin, durable = time.monotonic(), None
        while process.poll() is None:
            if durable is None and checkpoints(folder)[0]:
                durable = time.monotonic() - begin
            assert time.monotonic() - begin < 120, "the run does not end"
            time.sleep(0.002)
        ended = time.monotonic() - begin
    finally:
        process.kill()
        process.wait()
    said = open(f"{folder}.out", encoding="utf-8").read()
    assert process.returncode == 75 and "checkpoint durable" in said, said
    published, partial = checkpoints(folder)
    assert len(published) == 1 and not partial, (published, partial)
    assert f"stopped at step {published[0]} " in said and rows(folder)[-1] == published[0], said
    run("verify", *glob.glob(f"{folder}/checkpoints/step-*"))
    return durable if durable is not None else ended, ended, max(update_seconds(folder))


def measure(name, settings_of, ranks, rounds):
    """Rows (rank, signal, durable, ended, longest update); every one within an update and five seconds."""
    found = []
    for round_ in range(rounds):
        for rank in range(ranks):
            which = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)[(round_ + rank) % 3]
            folder = f"{name}-{round_}-{rank}"
            found.append((rank, which.name, *stop(folder, settings_of(folder), ranks, rank, which)))
            print("  rank %d  %-8s durable %6.2f s  exit %6.2f s  longest update %6.3f s" % found[-1], flush=True)
            shutil.rmtree(folder)
            assert found[-1][3] <= found[-1][4] + 5, found[-1]
    return found


def test_a_signal_to_any_rank_stops_all():
    prepare()
    measure("tiny", lambda folder: tiny(folder, **FOREVER), ranks=2, rounds=2)


def table():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--length", type=int, default=32)
    args = parser.parse_args()
    model, folder = os.path.abspath(args.model), tempfile.mkdtemp(prefix="roformer-stop-")
    os.chdir(folder)
    try:
        prepare()
        given = sets(model=model, model__vocab_size=400, corpus="corpus", vocab="vocab.txt", batch__sequences=args.sequences, batch__max_length=args.length, batch__lanes=4,
                     evaluation__documents=20, parallel__threads=1, **FOREVER)
        found = measure("run", lambda output: [*given, *sets(output=output)], args.ranks, args.rounds)
        for name, column in (("durable", 2), ("exit", 3), ("longest update", 4)):
            values = [row[column] for row in found]
            print(f"{name}: median {statistics.median(values):.2f} s, most {max(values):.2f} s over {len(values)} stops")
    finally:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        table()
    else:
        main(globals())

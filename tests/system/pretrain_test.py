#!/usr/bin/python3
"""Pre-training through the command line: it learns, its bits do not depend on ranks, it continues where it stopped."""

import json
import os
import shutil
import signal
import subprocess
import time

from harness import ROFORMER, main, prepare, run, sets, state, tiny


def losses(folder):
    with open(f"{folder}/results.jsonl", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [row["row"][1] for row in rows if row["table"] == "train"]


def test_loss_falls():
    prepare()
    run("pretrain", *tiny("learn", steps=150, schedule__lr="[[0,0],[20,1],[150,0.1]]", schedule__alpha="[[0,0],[40,1]]", checkpoint_every=150,
                          eval_every=150))
    values = losses("learn")
    assert len(values) == 150
    assert sum(values[-10:]) / 10 < 0.93 * sum(values[:10]) / 10, values


def test_data_ranks_give_the_same_bits():
    prepare()
    for ranks in (1, 2, 4):
        run("pretrain", *tiny(f"dp{ranks}"), ranks=ranks)
    assert state("dp1") == state("dp2") == state("dp4")


def test_lanes_that_are_no_power_of_two_give_the_same_bits():
    prepare()
    for ranks in (1, 2, 3):
        run("pretrain", *tiny(f"odd{ranks}", batch__lanes=6, steps=5), ranks=ranks)
    assert state("odd1") == state("odd2") == state("odd3")


def test_threads_give_the_same_bits():
    prepare()
    for threads in (1, 3):
        run("pretrain", *tiny(f"threads{threads}", parallel__threads=threads, steps=5))
    assert state("threads1") == state("threads3")


def test_tensor_ranks_follow_the_same_curve():
    # Sums over tensor ranks are rounded in another order: 1e-8 of the loss, which does not grow by itself. But where that
    # carries one inner unit over the kink of its relu, one element of a gradient jumps, and the curves part by an amount
    # that goes with the learning rate (the same happens on one rank when oneDNN uses another instruction set). At 2e-3 one
    # such event moved the loss by up to 2e-4, at 2e-4 by up to 3e-7: the bound has room for several, on any processor.
    prepare()
    settings = dict(steps=50, eval_every=50, checkpoint_every=50, optimizer__lr=2e-4)
    run("pretrain", *tiny("one", **settings))
    for ranks, tensor in ((2, 2), (4, 4), (4, 2)):
        run("pretrain", *tiny(f"tp{tensor}of{ranks}", parallel__tensor=tensor, **settings), ranks=ranks)
        for a, b in zip(losses("one"), losses(f"tp{tensor}of{ranks}"), strict=True):
            assert abs(a - b) < 1e-5 * a, (tensor, ranks, a, b)
    # At the higher rate the first ten updates stay together.
    run("pretrain", *tiny("fast"))
    for ranks, tensor in ((2, 2), (4, 4), (4, 2)):
        run("pretrain", *tiny(f"fast{tensor}of{ranks}", parallel__tensor=tensor), ranks=ranks)
        for a, b in zip(losses("fast"), losses(f"fast{tensor}of{ranks}"), strict=True):
            assert abs(a - b) < 1e-4 * a, (tensor, ranks, a, b)


def test_continues_bitwise_on_other_ranks():
    prepare()
    run("pretrain", *tiny("whole"))
    run("pretrain", *tiny("halves", steps=5), ranks=2)
    run("pretrain", *tiny("halves"), ranks=4)
    assert state("whole") == state("halves")
    assert len(losses("halves")) == 10


def test_reshards_without_changing_a_bit():
    prepare()
    run("pretrain", *tiny("split", steps=5, parallel__tensor=2), ranks=4)
    before = state("split")
    shutil.copytree("split", "joined")
    os.rename("joined/checkpoints/step-00000005", "joined/checkpoints/step-00000004")
    # A run of no further steps that starts from the other's weights writes them in its own split.
    run("pretrain", *tiny("again", steps=0, checkpoint="split"), ranks=1)
    weights = [line for line in run("inspect", "again").splitlines() if line.startswith("digest weights")]
    assert weights == [line for line in run("inspect", "split").splitlines() if line.startswith("digest weights")]
    assert before.startswith("digest state")


def test_no_thread_can_be_interrupted_by_a_signal_to_stop():
    # A handler's frame on the stack of a thread inside a oneDNN product could land in the heap (train/stop.hpp).
    prepare()
    command = [ROFORMER, "pretrain", *tiny("held", steps=100000, parallel__threads=2, checkpoint_every=100000, eval_every=100000)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        while not os.path.exists("held/results.jsonl") or len(losses("held")) < 3:
            time.sleep(0.05)
        to_stop = sum(1 << (s - 1) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT))
        threads = os.listdir(f"/proc/{process.pid}/task")
        assert len(threads) >= 4, threads  # main, its OpenMP thread, the prefetcher, the one that waits for signals
        open_to_them = []
        for thread in threads:
            with open(f"/proc/{process.pid}/task/{thread}/status", encoding="ascii") as lines:
                if int(next(line for line in lines if line.startswith("SigBlk")).split()[1], 16) & to_stop != to_stop:
                    open_to_them.append(thread)
        assert len(open_to_them) == 1, open_to_them  # sigwait takes its signals out of the mask while it waits
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 75


def test_signal_leaves_a_checkpoint_and_75():
    prepare()
    command = [ROFORMER, "pretrain", *tiny("signal", steps=100000, checkpoint_every=100000, eval_every=100000)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not os.path.exists("signal/results.jsonl") or len(losses("signal")) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    steps = os.listdir("signal/checkpoints")
    assert len(steps) == 1 and not steps[0].endswith(".partial"), steps


def test_time_limit_ends_with_75():
    prepare()
    run("pretrain", *tiny("limit", steps=100000, time_limit=2, eval_every=100000), ranks=2, expect=75)


def test_killed_run_continues_to_the_same_state():
    prepare()
    settings = tiny("killed", steps=60, checkpoint_every=2, eval_every=60)
    run("pretrain", *tiny("unharmed", steps=60, checkpoint_every=2, eval_every=60))
    for attempt in range(5):
        process = subprocess.Popen([ROFORMER, "pretrain", *settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.25 + 0.13 * attempt)
        process.kill()
        process.wait()
    run("pretrain", *settings, ranks=2)
    assert state("killed") == state("unharmed")
    assert len(losses("killed")) == 60


def test_damaged_checkpoint_is_named_and_left_aside():
    prepare()
    run("pretrain", *tiny("flip", checkpoint_every=5))
    good = state("flip")
    path = "flip/checkpoints/step-00000010/part-000-00000.h5"
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    text = run("verify", "flip", expect=1)
    assert "part-000-00000.h5" in text and "bytes" in text, text
    text = run("pretrain", *tiny("flip", checkpoint_every=5))
    assert "damaged" in text and "step 5" in text, text
    assert state("flip") == good


def test_encode_and_fill_mask():
    prepare()
    run("pretrain", *tiny("use", steps=5))
    line = open("text.txt", encoding="utf-8").readline().strip()
    masked = line[:3] + "[MASK]" + line[4:]
    text = run("fill-mask", "--checkpoint", "use", "--top", 3, stdin=(masked + "\n").encode())
    assert text.count("\t") == 3, text
    run("encode", "--checkpoint", "use", "--out", "one.h5", "--dtype", "f32", stdin=open("text.txt", "rb").read())
    run("encode", "--checkpoint", "use", "--out", "two.h5", "--dtype", "f32", stdin=open("text.txt", "rb").read(), ranks=2)
    assert open("one.h5", "rb").read() == open("two.h5", "rb").read()


if __name__ == "__main__":
    main(globals())

#!/usr/bin/env python3
"""convert beside a copy: seconds for a checkpoint's weights to reach the disk in each format, read back, and for a plain copy of the same bytes.

    tests/bench/convert.py ROFORMER CHECKPOINT [--rounds 3]

Copy and conversions alternate; of each the median is told, and the share of the copy's speed that a conversion reaches. CHECKPOINT should hold
weights alone: roformer convert --from rf --to rf RUN CHECKPOINT. The folder it lies in takes four times its size."""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time

FORMS = {"hf": ["hf"], "hf --weights zip": ["hf", "--weights", "zip"], "tf": ["tf"], "keras-h5": ["keras-h5"]}


def flush(folder):
    for path in [os.path.join(folder, name) for name in os.listdir(folder)] + [folder]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def timed(act):
    begin = time.monotonic()
    act()
    return time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("roformer")
    parser.add_argument("checkpoint")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    roformer, checkpoint = os.path.abspath(args.roformer), os.path.abspath(args.checkpoint)
    size = sum(os.path.getsize(os.path.join(checkpoint, name)) for name in os.listdir(checkpoint))
    seconds = {name: [] for name in ("copy", *FORMS, *(f"from {name}" for name in FORMS))}

    def convert(*words):
        subprocess.run([roformer, "convert", *words], check=True, stderr=subprocess.DEVNULL)

    with tempfile.TemporaryDirectory(dir=os.path.dirname(checkpoint)) as folder:
        os.chdir(folder)
        for _ in range(args.rounds):
            for name, words in FORMS.items():
                seconds["copy"].append(timed(lambda: (shutil.copytree(checkpoint, "copy"), flush("copy"))))
                seconds[name].append(timed(lambda: convert("--from", "rf", "--to", *words, checkpoint, "out")))
                seconds[f"from {name}"].append(timed(lambda: convert("--from", words[0], "--to", "rf", "out", "back")))
                for path in ("copy", "out", "back"):
                    shutil.rmtree(path)
        os.chdir("/")
    copy = statistics.median(seconds["copy"])
    print(f"copy: {copy:.2f} s, {size / copy / 1e6:.0f} MB/s (flushed), least {min(seconds['copy']):.2f}")
    for name in list(seconds)[1:]:
        median = statistics.median(seconds[name])
        print(f"{name}: {median:.2f} s, {size / median / 1e6:.0f} MB/s, {copy / median:.0%} of the copy; least {min(seconds[name]):.2f}")


if __name__ == "__main__":
    main()

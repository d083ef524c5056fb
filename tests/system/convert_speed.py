#!/usr/bin/python3
"""Conversions of a model with random weights, by turns with a copy of as many bytes that is flushed to the disk: prints a table of medians.

    convert_speed.py [--model inputs/model/base.json] [--rounds 5]

Everything is made in the current folder's `convert-speed`, which should lie on the disk in question, and removed. Inputs come from the page cache, for the
copy too. Round trips must give the weights back. ROFORMER: default that of build/cpu-release."""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

os.environ.setdefault("RF_SOURCE_DIR", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
os.environ.setdefault("ROFORMER", os.path.join(os.environ["RF_SOURCE_DIR"], "build/cpu-release/roformer"))

from harness import ROFORMER, SOURCE, prepare, run, tiny  # noqa: E402

FORMATS = {"safetensors": ("hf",), "torch zip": ("hf", "--weights", "zip"), "tf": ("tf",), "keras-h5": ("keras-h5",), "rf": ("rf",)}


def settle():
    subprocess.run(["sync"], check=True)


def copy(path):
    settle()
    begin = time.monotonic()
    subprocess.run(["dd", f"if={path}", "of=copy", "bs=1M", "conv=fsync"], stderr=subprocess.DEVNULL, check=True)
    seconds = time.monotonic() - begin
    os.remove("copy")
    return seconds


def convert(source, target, path, out):
    """Wall time of the whole program, and its peak memory in MiB."""
    settle()
    begin = time.monotonic()
    program = subprocess.Popen([ROFORMER, "convert", "--from", source, "--to", *target, path, out], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    _, status, usage = os.wait4(program.pid, 0)
    program.returncode = os.waitstatus_to_exitcode(status)
    assert program.returncode == 0, (source, target)
    return time.monotonic() - begin, usage.ru_maxrss / 1024


def digest(path):
    return re.search("digest weights.*", run("inspect", path, timeout=900)).group()


def measure(model, rounds):
    prepare(60)
    shape = {f"model__{key}": value for key, value in json.load(open(model, encoding="utf-8")).items()}
    run("pretrain", *tiny("run", steps=0, **shape), timeout=900)
    run("convert", "--from", "rf", "--to", "rf", "run", "model", timeout=900)  # without moments
    shutil.rmtree("run")
    part = "model/part-000-00000.h5"
    copies, times, peaks = [], {}, []
    for _ in range(rounds):
        for name, target in FORMATS.items():
            copies.append(copy(part))
            for way, arguments in (("out", ("rf", target, "model", "there")), ("back", (target[0], ("rf",), "there", "back"))):
                seconds, peak = convert(*arguments)
                times.setdefault((name, way), []).append(seconds)
                peaks.append(peak)
            assert digest("back") == digest("model"), name
            shutil.rmtree("there")
            shutil.rmtree("back")
    whole = statistics.median(copies)
    print(f"{os.path.getsize(part) / 1e6:.0f} MB, {rounds} rounds; copy {whole:.2f} s ({min(copies):.2f} to {max(copies):.2f}); load {os.getloadavg()[0]:.1f}; "
          f"peak memory of a conversion {max(peaks):.0f} MiB\n")
    print("| format | out, s | of copy's speed | back, s | of copy's speed |\n| --- | --- | --- | --- | --- |")
    for name in FORMATS:
        out, back = statistics.median(times[name, "out"]), statistics.median(times[name, "back"])
        print(f"| {name} | {out:.2f} | {100 * whole / out:.0f} % | {back:.2f} | {100 * whole / back:.0f} % |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=os.path.join(SOURCE, "inputs/model/base.json"))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model = os.path.abspath(args.model)
    os.mkdir("convert-speed")
    os.chdir("convert-speed")
    try:
        measure(model, args.rounds)
    finally:
        os.chdir("..")
        shutil.rmtree("convert-speed")


if __name__ == "__main__":
    sys.exit(main())

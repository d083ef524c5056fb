#!/usr/bin/python3
"""Flips and cuts in every kind of place of a checkpoint, a corpus shard and results: each is found before use and the file is named, or
nothing that is read has changed. Prints a table.

    flip_campaign.py [--flips 10000] [--cuts 1000] [--seed 1]

Places of a file: `header` (the first 512 bytes), `structure` (HDF5 beside the data), `data`, `digest` (the file beside it, or the seal in front),
and for results the lines of the journal. Needs FLIP_TOOL, which looks at many flips in one process, and ROFORMER (default: those of
build/cpu-release)."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("RF_SOURCE_DIR", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
os.environ.setdefault("ROFORMER", os.path.join(os.environ["RF_SOURCE_DIR"], "build/cpu-release/roformer"))
os.environ.setdefault("FLIP_TOOL", os.path.join(os.environ["RF_SOURCE_DIR"], "build/cpu-release/tests/system/flip_tool"))

from harness import prepare, run, tiny  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=10000, help="of each kind of file")
    parser.add_argument("--cuts", type=int, default=1000, help="of each kind of file")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="roformer-flips-")
    os.chdir(folder)
    begin = time.monotonic()
    try:
        prepare(60)
        run("pretrain", *tiny("run"))
        print("| what | place | flips | found and named | harmless |\n| --- | --- | --- | --- | --- |", flush=True)
        done = subprocess.run([os.environ["FLIP_TOOL"], "run/checkpoints/step-00000010", "corpus/corpus-00000-of-00001.h5", "run/results.h5",
                               "run/results.jsonl", str(args.flips), str(args.cuts), str(args.seed)], timeout=3600)
        assert done.returncode == 0, f"flip_tool: {done.returncode}"
        run("verify", "run", "corpus")  # everything was put back
        print(f"{time.monotonic() - begin:.0f} s")
    finally:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

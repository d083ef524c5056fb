#!/usr/bin/python3
"""Word boundaries agree with jieba.cut(text, HMM=False) over a megabyte of real text, an equal share from every file."""

import glob
import json
import lzma
import os
import subprocess
import sys

DATA = os.environ.get("RF_DATA") or os.path.join(os.environ["RF_SOURCE_DIR"], "../shared/data")
FILES = sorted(glob.glob(os.path.join(DATA, "corpus/*.jsonl.xz")))
BYTES = 1_000_000
AGREEMENT = 0.999


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def sample(files, most):
    lines = []
    for path in files:
        rest = most // len(files) + 1
        with lzma.open(path, "rt", encoding="utf-8", newline="\n") as records:
            for record in records:
                for line in json.loads(record)["text"].split("\n"):
                    # U+0001 is the mark between words; a line is cut in the middle of nothing but a long line.
                    line = line.replace("\r", "").replace("\x01", "")[:2000]
                    if line and rest > 0:
                        lines.append(line)
                        rest -= len(line.encode())
                if rest <= 0:
                    break
    return lines


def boundaries(words):
    at, places = 0, set()
    for word in words[:-1]:
        at += len(word)
        places.add(at)
    return places


def main():
    try:
        import logging

        import jieba
        jieba.setLogLevel(logging.ERROR)
    except ImportError:
        skip("python3-jieba is not installed")
    if not FILES:
        skip(f"{DATA}/corpus is absent (RF_DATA names the folder of the real data)")
    lines = sample(FILES, BYTES)
    text = "\n".join(lines) + "\n"
    out = subprocess.run([sys.argv[1]], input=text.encode(), stdout=subprocess.PIPE, check=True).stdout.decode().split("\n")[:-1]
    assert len(out) == len(lines), (len(out), len(lines))
    both = either = 0
    for line, ours in zip(lines, out):
        own = ours.split("\x01")
        assert "".join(own) == line
        a, b = boundaries(own), boundaries(jieba.lcut(line, HMM=False))
        both += len(a & b)
        either += len(a | b)
        if a != b:
            print("differs:", "/".join(own))
    print(f"{len(text.encode())} bytes, {len(lines)} lines: {both} of {either} boundaries agree ({100 * both / either:.5f} %)")
    assert len(text.encode()) >= BYTES, "the text is too short for the figure"
    assert both >= AGREEMENT * either


main()

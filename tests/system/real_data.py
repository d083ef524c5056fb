"""Where the real data and the shipped task files lie, and the text of a packed file. Tests that read them say so and are skipped where they are absent."""

import lzma
import os

from harness import SOURCE

DATA = os.environ.get("RF_DATA") or os.path.join(SOURCE, "../shared/data")
TASKS = os.path.join(SOURCE, "inputs/tasks")
VOCAB = os.path.join(DATA, "vocab/roformer_v2_char_vocab.txt")


def have_data():
    if not os.path.exists(VOCAB):
        print(f"skipped here: {VOCAB} is absent (RF_DATA names the folder of the real data)")
        return False
    return True


def packed(*path):
    with lzma.open(os.path.join(*path), "rt", encoding="utf-8", newline="\n") as file:
        return file.read()

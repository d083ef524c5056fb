#!/usr/bin/python3
"""Damage on disk: a flipped byte at any place of any file, a cut or a lost file is named, and training takes the newest whole checkpoint."""

import os
import random
import shutil

from harness import main, prepare, run, sets, state, tiny

OFFSETS = 6  # sampled in each file besides the first, the middle and the last byte


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def files_of(folder):
    return sorted(os.path.join(base, name) for base, _, names in os.walk(folder) for name in names)


def check_every_file(folder):
    """Each sampled byte of each file is flipped and flipped back; verify must name the file, and agree in the end."""
    rng = random.Random(5)
    for path in files_of(folder):
        size = os.path.getsize(path)
        for offset in sorted({0, size // 2, size - 1, *(rng.randrange(size) for _ in range(OFFSETS))}):
            flip(path, offset)
            text = run("verify", folder, expect=1)
            assert path in text, f"byte {offset} of {path} flipped:\n{text}"
            flip(path, offset)
    assert "all agree" in run("verify", folder)


def run_of_two_checkpoints(folder):
    if not os.path.exists("base"):
        prepare()
        run("pretrain", *tiny("base"), ranks=2)
    shutil.copytree("base", folder)
    return f"{folder}/checkpoints/step-00000010"


def test_flipped_byte_of_a_checkpoint_is_named():
    check_every_file(run_of_two_checkpoints("bytes"))


def test_flipped_byte_of_a_corpus_is_named():
    prepare()
    shutil.copytree("corpus", "flipped")
    check_every_file("flipped")


def test_verify_names_every_damaged_file_on_any_number_of_ranks():
    newest = run_of_two_checkpoints("many")
    damaged = [path for path in files_of(newest) if path.endswith(".h5")]
    for path in damaged:
        flip(path, os.path.getsize(path) // 3)
    for ranks in (1, 3):
        text = run("verify", "many", ranks=ranks, expect=1)
        assert all(path in text for path in damaged) and text.count("damaged:") == len(damaged), text


def test_training_takes_the_newest_whole_checkpoint_and_says_so():
    good = None
    for number, harm in enumerate((lambda p: flip(f"{p}/checkpoint.h5", 100), lambda p: flip(f"{p}/part-000-00001.h5", 5000),
                                   lambda p: flip(f"{p}/part-000-00000.h5.digest", 30), lambda p: os.truncate(f"{p}/part-000-00000.h5", 4096),
                                   lambda p: [os.remove(f"{p}/part-000-00001.h5{end}") for end in ("", ".digest")],
                                   lambda p: os.remove(f"{p}/checkpoint.h5"))):
        newest = run_of_two_checkpoints(f"harmed{number}")
        good = good or state("base")
        harm(newest)
        run("verify", f"harmed{number}", expect=1)
        text = run("pretrain", *tiny(f"harmed{number}"), ranks=1 + number % 2)
        assert text.count("step 10 is damaged and left aside") == 1 and newest in text and "continuing from the checkpoint of step 5" in text, text
        assert state(f"harmed{number}") == good
        run("verify", f"harmed{number}")


def test_a_run_without_a_whole_checkpoint_is_not_begun_anew():
    """All checkpoints harmed: weeks of work may be worth a repair, so nothing is overwritten unasked."""
    newest = run_of_two_checkpoints("lost")
    for path in (newest, newest.replace("10", "05")):
        flip(f"{path}/checkpoint.h5", 100)
    text = run("pretrain", *tiny("lost"), expect=2)
    assert "no whole checkpoint (2 damaged)" in text and "--restart" in text, text
    run("pretrain", *tiny("lost"), "--restart")


def test_results_that_end_in_a_torn_line_continue():
    run_of_two_checkpoints("torn")
    shutil.rmtree("torn/checkpoints/step-00000010")
    with open("torn/results.jsonl", "r+b") as file:
        file.truncate(os.path.getsize("torn/results.jsonl") - 7)
    with open("torn/results.h5", "r+b") as file:
        file.truncate(1000)
    run("pretrain", *tiny("torn"))
    assert state("torn") == state("base")
    assert "table /train: 10 rows" in run("inspect", "torn/results.h5")


if __name__ == "__main__":
    main(globals())

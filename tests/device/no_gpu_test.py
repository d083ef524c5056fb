#!/usr/bin/python3
"""A program built with CUDA on a machine without a GPU or a driver: it starts, works on the CPU, and says what it does not find. Where
there is a GPU it is hidden."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ["RF_SOURCE_DIR"], "tests", "system"))
from harness import ROFORMER, main, prepare, run, sets, tiny  # noqa: E402

os.environ["CUDA_VISIBLE_DEVICES"] = ""


def test_the_driver_is_not_needed_to_start():
    libraries = subprocess.run(["ldd", ROFORMER], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "libcudart.so" in libraries, f"not a CUDA build:\n{libraries}"
    assert "libcuda.so" not in libraries, libraries
    assert "roformer" in run("--version")


def test_cuda_is_refused_in_plain_words():
    prepare()
    for words in (sets(device="cuda"), ["--device", "cuda"]):
        text = run("pretrain", *tiny("none"), *words, expect=2)
        assert "no GPU can be used" in text, text
        assert not os.path.exists("none/results.h5"), os.listdir("none")
    assert "no GPU can be used" in run("bench", *sets(model__hidden_size=64, model__num_attention_heads=4, device="cuda"), expect=2)


def test_auto_takes_the_cpu_and_says_so():
    prepare()
    for words in (sets(device="auto"), ["--device", "auto"]):
        text = run("pretrain", *tiny("auto", steps=1), *words, "--restart")
        assert "no GPU can be used" in text and "working on the CPU" in text, text


if __name__ == "__main__":
    main(globals())

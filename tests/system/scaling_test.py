#!/usr/bin/python3
"""scaling.py against figures worked out by hand, what it refuses, and jobs/scaling.sh end to end with a tiny model."""

import json
import os
import re
import subprocess
import sys

import h5py
import harness
from harness import SOURCE

SCALING = os.path.join(SOURCE, "postprocess/scaling.py")
STUDY = os.path.join(SOURCE, "jobs/scaling.sh")
MODEL = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 400}


def write(path, rows, **texts):
    """bench.h5 of rows (ranks, tensor, sequences, seconds, communication) of 100 tokens a sequence."""
    texts = {"model": json.dumps(MODEL), "input": "{}", "label": "one", **texts}
    with h5py.File(path, "w") as file:
        file.attrs["kind"] = "roformer bench"
        bench = file.create_group("bench")
        names = ("ranks", "tensor", "sequences", "seconds_per_step", "seconds_communication")
        for name, values in zip(names, zip(*rows)):
            bench[name] = [float(value) for value in values]
        bench["length"] = [100.0] * len(rows)
        bench["peak_fraction"] = [0.5] * len(rows)
        bench["tokens_per_second"] = [100 * row[2] / row[3] for row in rows]
        for name, text in texts.items():
            bench.create_dataset(name, data=[text] * len(rows), dtype=h5py.string_dtype())


def scaling(*words, expect=0):
    done = subprocess.run([sys.executable, SCALING, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False)
    text = done.stdout.decode()
    assert done.returncode == expect and "Traceback" not in text and "Warning" not in text, f"{words}: exit code {done.returncode}, expected {expect}\n{text}"
    return text


def test_figures_are_those_worked_out_by_hand():
    # Three rounds on one rank, their median 8 s; two on four, 5 s: a speed-up of 1.6, (1 / 1.6 - 1 / 4) / (1 - 1 / 4) serial.
    write("bench.h5", [(1, 1, 16, 8, 0), (1, 1, 16, 7, 0), (1, 1, 16, 10, 0), (2, 1, 16, 5, 1), (4, 1, 16, 2.5, 1), (2, 2, 16, 6.4, 1.6), (1, 1, 4, 4, 0), (4, 1, 16, 7.5, 3)])
    text = scaling("bench.h5", "-o", "page.html")
    for line in ("model: L 2, C 64, H 4, F 128, V 400", "strong: 16 sequences, ranks 1, tensor 1: 8 s, speed-up 1, efficiency 1, serial fraction –, communication 0.0000",
                 "strong: 16 sequences, ranks 2, tensor 1: 5 s, speed-up 1.6, efficiency 0.8000, serial fraction 0.2500, communication 0.2000",
                 "strong: 16 sequences, ranks 2, tensor 2: 6.4 s, speed-up 1.25, efficiency 0.6250, serial fraction 0.6000, communication 0.2500",
                 "strong: 16 sequences, ranks 4, tensor 1: 5 s, speed-up 1.6, efficiency 0.4000, serial fraction 0.5000, communication 0.4000",
                 "weak: 4 sequences a rank, ranks 1, tensor 1: 4 s, efficiency 1, communication 0.0000"):
        assert f"  {line}" in text.splitlines(), f"{line}\n{text}"
    # The median of 16 x 100 / 2.5 and 16 x 100 / 7.5 is 426.7 tokens/s: 106.7 a rank, and one rank had 100.
    assert "  weak: 4 sequences a rank, ranks 4, tensor 1: 5 s, efficiency 1.067, communication 0.4000" in text.splitlines(), text
    page = open("page.html", encoding="utf-8").read()
    assert "<td>7 – 10</td>" in page.replace(" class=n", "") and page.count("<svg") == 6, page[:3000]


def test_collectives_count_where_they_were_measured():
    write("bench.h5", [(1, 1, 8, 4, 0), (2, 1, 8, 2, 0.1)])
    with h5py.File("bench.h5", "a") as file:
        file["bench/seconds_collectives"] = [0.0, 0.5]
    assert "communication 0.2500" in scaling("bench.h5")
    assert os.path.exists("scaling.html")


def test_setups_are_kept_apart():
    write("a.h5", [(1, 1, 8, 4, 0), (2, 1, 8, 2, 0)])
    with h5py.File("a.h5", "a") as file:
        file["bench/threads"] = [1.0, 2.0]
    text = scaling("a.h5", "-o", "a.html")
    assert text.count("nothing to compare") == 2 and "threads a rank: 2" in text, text


def test_what_is_no_study_is_named():
    assert scaling("absent.h5", expect=1) == "scaling.py: absent.h5 does not exist (expected a bench.h5)\n"
    open("text.h5", "w", encoding="utf-8").write("no HDF5")
    assert scaling("text.h5", expect=1).startswith("scaling.py: text.h5 cannot be read: ")
    with h5py.File("other.h5", "w") as file:
        file.attrs["kind"] = "roformer results"
    assert scaling("other.h5", expect=1) == "scaling.py: other.h5 is no bench file of roformer\n"
    write("lacking.h5", [(1, 1, 8, 4, 0)])
    with h5py.File("lacking.h5", "a") as file:
        del file["bench/tensor"]
    assert scaling("lacking.h5", expect=1) == "scaling.py: lacking.h5: /bench has no column tensor\n"
    write("uneven.h5", [(1, 1, 8, 4, 0)])
    with h5py.File("uneven.h5", "a") as file:
        file["bench/threads"] = [1.0, 2.0]
    assert scaling("uneven.h5", expect=1) == "scaling.py: uneven.h5: /bench/threads has 2 rows, expected 1 as /bench/ranks has\n"
    with h5py.File("scalar.h5", "w") as file:
        file.attrs["kind"] = "roformer bench"
        file["bench/ranks"] = 1.0
    assert scaling("scalar.h5", expect=1).startswith("scaling.py: scalar.h5 cannot be read: ")
    write("words.h5", [(1, 1, 8, 4, 0)])
    with h5py.File("words.h5", "a") as file:
        del file["bench/tensor"]
        file["bench"].create_dataset("tensor", data=["one"], dtype=h5py.string_dtype())
    assert scaling("words.h5", expect=1) == "scaling.py: words.h5: row 0 of /bench holds text where a number is expected\n"
    write("zero.h5", [(1, 1, 8, 0.5, 0), (1, 1, 0, 0.5, 0)])
    assert scaling("zero.h5", expect=1).startswith("scaling.py: zero.h5: row 1 of /bench is no measurement")
    write("good.h5", [(1, 1, 8, 4, 0)])
    assert scaling("good.h5", "-o", "nowhere/page.html", expect=1) == "scaling.py: cannot write nowhere/page.html: No such file or directory\n"


def study(*words, expect=0):
    done = subprocess.run([STUDY, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240, check=False)
    text = done.stdout.decode()
    assert done.returncode == expect, f"{words}: exit code {done.returncode}, expected {expect}\n{text}"
    return text


def test_a_study_is_made_continued_and_drawn():
    with open("model.json", "w", encoding="utf-8") as file:
        json.dump(MODEL, file)
    output = os.path.join(os.getcwd(), "study")
    words = ["--ranks", "1 2", "--tensor", "1 3 2", "--batch", "4", "--per-rank", "2", "--model", os.path.abspath("model.json"), "--length", "16", "--steps", "1",
             "--set", "dtype=f32", "--output", output]
    text = study(*words, "--rounds", "1")
    # One rank: 4 and 2 sequences. Two: 4, with one and two tensor ranks.
    assert "4 measurements, 0 of them there" in text and re.search(r"^4/4  round 1: 2 ranks, tensor 2, 4 x 16: [\d.]+ s, \d+ tokens/s  ETA 00:00$", text, re.M), text
    text = study(*words, "--rounds", "2")
    assert "8 measurements, 4 of them there" in text and "1/4  round 2: 2 ranks, tensor 2, 4 x 16" in text, text
    assert "strong: 4 sequences, ranks 2, tensor 2: " in text and "weak: 2 sequences a rank, ranks 2, tensor 1: " in text, text
    assert text.splitlines()[-1] == f"{output}/scaling.html" and os.path.getsize(f"{output}/scaling.html") > 10000
    assert "8 measurements, 8 of them there" in study(*words, "--rounds", "2")
    with h5py.File(f"{output}/bench.h5") as file:
        assert list(file["bench/ranks"][:]) == [1, 1, 2, 2, 2, 2, 1, 1] and list(file["bench/sequences"][:]) == [2, 4, 4, 4, 4, 4, 4, 2]
    # Four heads do not divide over three ranks: named, left out, and the rest is made.
    text = study(*words[:1], "3", "--tensor", "1 3", "--batch", "3", "--per-rank", "none", *words[8:], "--rounds", "1")
    assert "left out: round 1: 3 ranks, tensor 3, 3 x 16: error: " in text and "4 heads do not divide over 3" in text, text


def test_a_study_in_an_allocation():
    """scaling.slurm with a stand-in for srun: cores are those of the allocation."""
    os.makedirs("bin", exist_ok=True)
    with open("bin/srun", "w", encoding="utf-8") as file:
        file.write('#!/bin/sh\n[ "$1 $2 $3 $4 $5 $6" = "--mpi=pmix --kill-on-bad-exit=1 --exact -c 1 -n" ] || exit 9\nshift 6\nexec mpirun -n "$@"\n')
    os.chmod("bin/srun", 0o755)
    with open("model.json", "w", encoding="utf-8") as file:
        json.dump(MODEL, file)
    output = os.path.join(os.getcwd(), "allocated")
    env = {**os.environ, "PATH": f"{os.getcwd()}/bin:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": SOURCE, "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "1"}
    words = ["--tensor", "1", "--batch", "none", "--per-rank", "1", "--rounds", "1", "--steps", "1", "--length", "16", "--model", os.path.abspath("model.json")]
    done = subprocess.run([f"{SOURCE}/jobs/scaling.slurm", *words, "--output", output], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240, env=env, check=False)
    text = done.stdout.decode()
    assert done.returncode == 0 and "scaling: ranks 1 2; tensor 1; " in text and "weak: 1 sequences a rank, ranks 2, tensor 1: " in text, text


def test_a_study_refuses_what_it_cannot_make():
    assert study("--rank", "1", expect=2) == "scaling: unknown option --rank (--help lists them)\n"
    assert study("--ranks", expect=2) == "scaling: --ranks needs a value\n"
    assert study("--ranks", "1 two", expect=2) == "scaling: --ranks: expected whole numbers above 0, found \"two\"\n"
    assert study("--ranks", "two", "--threads", "none", expect=2) == "scaling: --ranks: expected whole numbers above 0, found \"two\"\n"
    assert study("--steps", "", expect=2) == "scaling: --steps: expected one whole number above 0, found \"\"\n"
    assert study("--rounds", "0", expect=2) == "scaling: --rounds: expected whole numbers above 0, found \"0\"\n"
    assert study("--ranks", "1 3", "--tensor", "2", expect=2).startswith("scaling: nothing to measure")
    assert study("--model", "absent.json", expect=2) == "scaling: --model: absent.json is not there\n"
    text = open(os.path.join(SOURCE, "jobs/scaling.sh"), encoding="utf-8").read()
    assert study("--help").splitlines()[0] in text
    # A file of another kind in its place is not touched.
    os.makedirs("taken", exist_ok=True)
    open("taken/bench.h5", "w", encoding="utf-8").write("mine")
    assert "cannot be read" in study("--output", os.path.abspath("taken"), "--ranks", "1", expect=2)
    assert open("taken/bench.h5", encoding="utf-8").read() == "mine"


if __name__ == "__main__":
    harness.main(globals())

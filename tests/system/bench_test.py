#!/usr/bin/python3
"""bench: rows are added to its file, one and two ranks, a corpus' lengths; the trace of every rank; what is refused before any work."""

import json
import os
import shutil
import subprocess

import h5py
import harness
import numpy as np
from harness import prepare, run, sets

KINDS = ("compute", "communication", "input", "checkpoint")


def tiny(**more):
    settings = dict(model__hidden_size=64, model__num_attention_heads=4, model__num_hidden_layers=2, model__intermediate_size=128, model__vocab_size=400,
                    batch__sequences=4, batch__max_length=16, steps=2, dtype="f32", parallel__threads=1)
    settings.update(more)
    return sets(**settings)


def tables(path):
    with h5py.File(path) as file:
        return tuple({name: data[:] for name, data in file[group].items()} for group in ("bench", "kernels"))


def test_rows_are_added():
    text = run("bench", *tiny(output="rows.h5", label="first"))
    assert "that oneDNN makes of a layer's products, forward and backward, whole and alone" in text and "row 0 of rows.h5" in text, text
    before = tables("rows.h5")
    assert "row 1 of rows.h5" in run("bench", *tiny(output="rows.h5", batch__sequences=6, parallel__tensor=2), ranks=2)
    bench, kernels = tables("rows.h5")
    assert list(bench["ranks"]) == [1, 2] and list(bench["tensor"]) == [1, 2] and list(bench["sequences"]) == [4, 6] and list(bench["lanes"]) == [1, 1]
    assert list(bench["label"]) == [b"first", b""] and json.loads(bench["model"][1])["hidden_size"] == 64 and json.loads(bench["input"][1])["parallel"]["tensor"] == 2
    assert {len(column) for column in bench.values()} == {2} and len({len(column) for column in kernels.values()}) == 1
    for name, column in before[0].items():
        assert np.array_equal(column, bench[name][:1]), name
    first = kernels["measurement"] == 0
    for name, column in before[1].items():
        assert np.array_equal(column, kernels[name][first]), name
    assert bench["seconds_collectives"][0] == 0 < bench["seconds_collectives"][1] < bench["seconds_per_step"][1]
    assert np.allclose(bench["peak_fraction"], bench["flops_per_second"] / bench["product_flops_per_second"])
    # Of 28.2 million FLOPs for 64 tokens of which 10 are predicted: 6.7 million less of the last layer, 0.3 more of attention.
    assert all(0.73 < share < 0.82 for share in bench["computed_fraction"]), bench["computed_fraction"]
    # Of the second measurement: every op once, in it the products of both layers in all three forms, and less time than an update.
    names, second = [name.decode() for name in kernels["name"][~first]], kernels["seconds"][~first]
    assert len(set(names)) == len(names) and {"all_reduce", "attention", "gemm NT 96 x 96 x 64", "gemm NN 96 x 64 x 96", "gemm TN 96 x 64 x 96"} <= set(names), names
    assert 0 < sum(second) < 1.5 * bench["seconds_per_step"][1]
    assert not os.path.exists("rows.h5.partial")
    assert "dataset bench/ranks [2]" in run("inspect", "rows.h5")


def test_rows_of_programs_that_end_together_are_all_there():
    command = [harness.ROFORMER, "bench", *tiny(output="together.h5", steps=1)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(6)]
    said = [program.communicate(timeout=240)[0] for program in running]
    assert all(program.returncode == 0 for program in running), said
    bench, kernels = tables("together.h5")
    assert len(bench["ranks"]) == 6 and set(kernels["measurement"]) == set(range(6)), bench
    assert all(any(f"row {row} of together.h5" in text for text in said) for row in range(6)), said


def test_a_file_of_one_row_of_old_is_taken_up():
    run("bench", *tiny(output="new.h5"))
    with h5py.File("new.h5") as new, h5py.File("old.h5", "w") as old:
        old.attrs.update({"kind": "roformer bench", "schema_version": 1, "processor": "another", "dtype": "bf16", "device": "cpu", "input": "{}"})
        for name in ("ranks", "tensor", "sequences", "length", "seconds_per_step", "tokens_per_second", "flops_per_second", "peak_fraction"):
            old[f"bench/{name}"] = new[f"bench/{name}"][:] + 1
            old[f"bench/{name}"].attrs.update(units="1", description="as it was")
        old["bench/temperature"] = [40.0]
    run("bench", *tiny(output="old.h5"))
    bench, _ = tables("old.h5")
    assert list(bench["processor"])[0] == b"another" and list(bench["dtype"]) == [b"bf16", b"f32"] and list(bench["ranks"]) == [2, 1]
    assert np.isnan(bench["threads"][0]) and bench["threads"][1] == 1 and bench["temperature"][0] == 40 and np.isnan(bench["temperature"][1])


def test_products_of_varying_targets_are_one_row():
    prepare()
    run("bench", *tiny(output="mixed.h5", corpus="corpus", steps=4, batch__sequences=8, batch__max_length=64))
    _, kernels = tables("mixed.h5")
    head = [name.decode() for name in kernels["name"] if b" 400 x 64" in name or b"400 x 64 x" in name or b" 64 x 400" in name]
    assert len(head) == 3 and all("~" in name for name in head), head


def events(path, ranks):
    """The events of a trace by rank and kind; what must hold for all of them."""
    trace = json.load(open(path, encoding="utf-8"))
    found = {}
    for event in trace["traceEvents"]:
        assert {"name", "ph", "pid", "tid"} <= set(event), event
        if event["ph"] == "X":
            assert event["ts"] >= 0 and event["dur"] >= 0, event
            found.setdefault(event["pid"], {}).setdefault(event["cat"], []).append(event)
    named = {(event["pid"], event["args"]["name"]) for event in trace["traceEvents"] if event["name"] == "thread_name"}
    assert set(found) == set(range(ranks)) and named == {(rank, kind) for rank in range(ranks) for kind in ("updates", *KINDS)}, (set(found), named)
    return found


def test_trace_has_every_kind_of_every_rank():
    text = run("bench", *tiny(output="traced.h5"), "--trace", "trace.json", ranks=2)
    assert "trace of 2 updates and a checkpoint: trace.json" in text
    found = events("trace.json", 2)
    for rank, kinds in found.items():
        assert set(kinds) == {"updates", *KINDS}, (rank, set(kinds))
        assert [event["name"] for event in kinds["updates"]] == ["update 5", "update 6"] and len(kinds["input"]) == 2
        assert [event["name"] for event in kinds["checkpoint"]] == ["copy the state", "write and flush"]
        # One thread does one thing at a time, and all of it within the updates.
        begin, end = kinds["updates"][0]["ts"], kinds["updates"][-1]["ts"] + kinds["updates"][-1]["dur"]
        done = sorted((event["ts"], event["ts"] + event["dur"]) for kind in ("compute", "communication") for event in kinds[kind])
        assert begin <= done[0][0] and done[-1][1] <= end + 0.01 and all(a[1] <= b[0] + 0.01 for a, b in zip(done, done[1:]))
        assert any(event["args"].get("shape") == "32 x 192 x 64" and event["args"]["GFLOP/s"] > 0 for event in kinds["compute"])
    # Clocks agree: no rank has the other's gradients before that has begun to send them.
    first, second = ([event for event in found[rank]["communication"] if event["name"] == "all_to_all"] for rank in (0, 1))
    assert len(first) == len(second) > 0
    for one, other in [*zip(first, second), *zip(second, first)]:
        assert one["ts"] + one["dur"] > other["ts"], (one, other)
    assert not [name for name in os.listdir(".") if name.startswith("trace.json.")], os.listdir(".")
    # One rank has nobody to talk to. An older trace is replaced.
    run("bench", *tiny(output="traced.h5"), "--trace", "trace.json")
    assert set(events("trace.json", 1)[0]) == {"updates", "compute", "input", "checkpoint"}


def refused(*words, says, ranks=1, code=2):
    text = run("bench", *words, expect=code, ranks=ranks)
    assert says in text and text.count("error:") == 1, f"expected {says!r} in:\n{text}"


def test_bad_places_are_refused_before_any_work():
    for name in ("notes.h5", "notes.json"):
        open(name, "w", encoding="utf-8").write("mine")
    with h5py.File("results.h5", "w") as file:
        file.attrs["kind"] = "roformer results"
        file.create_group("bench")
    with h5py.File("foreign.h5", "w") as file:
        file["bench"] = [1]
    with h5py.File("uneven.h5", "w") as file:
        file.attrs["kind"] = "roformer bench"
        file["bench/ranks"], file["bench/tensor"] = [1.0, 2.0], [1.0]
    os.makedirs("folder", exist_ok=True)
    # The model is not there either: it is not even looked for.
    words = sets(model="inputs/none.json")
    for output, says in (("notes.h5", "output: notes.h5 is no HDF5 file (expected a file that bench wrote, or none)"), ("foreign.h5", "output: foreign.h5 is no bench file"),
                         ("results.h5", "output: results.h5: roformer results (expected a file that bench wrote, or none)"), ("folder", "output: folder is a folder"),
                         ("uneven.h5", "output: uneven.h5: /bench/tensor has 1 rows, expected 2 as of the other columns"),
                         ("nowhere/b.h5", "output: the folder nowhere of nowhere/b.h5 does not exist"), ("notes.h5/b.h5", "output: the folder notes.h5 of notes.h5/b.h5 is a file"),
                         ("", "output: expected the name of a file")):
        for ranks in (1, 2):
            refused(*words, *sets(output=output), says=says, ranks=ranks)
    for trace, says in (("notes.json", "--trace: notes.json is there and no trace of this program"), ("folder", "--trace: folder is a folder"),
                        ("nowhere/t.json", "--trace: the folder nowhere of nowhere/t.json does not exist"), ("", "--trace: expected the name of a file")):
        refused(*words, *sets(output="free.h5"), f"--trace={trace}", says=says, ranks=2)
    assert open("notes.h5", encoding="utf-8").read() == "mine" and open("notes.json", encoding="utf-8").read() == "mine" and not os.path.exists("free.h5")


def test_bad_values_are_refused():
    prepare()
    refused(*tiny(corpus="absent"), says="corpus: absent does not exist")
    refused(*tiny(corpus="absent"), says="corpus: absent does not exist", ranks=2)
    refused(*tiny(steps=0), says="steps: expected at least 1, found 0")
    refused(*tiny(batch__lanes=9), says="batch.lanes: expected 0 (one for each data rank) to batch.sequences = 4, found 9")
    refused(*tiny(batch__sequences=1), says="batch.sequences: expected at least 2, one for each data rank, found 1", ranks=2)
    refused(*tiny(parallel__threads=-1), says="parallel.threads: expected 0")
    refused(*tiny(corpus="corpus", model__vocab_size=100), says="model.vocab_size")
    assert not os.path.exists("bench.h5")


def test_full_disk_keeps_the_rows_before():
    os.makedirs("small", exist_ok=True)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "small"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        print("skip test_full_disk_keeps_the_rows_before: needs the right to mount")
        return
    try:
        run("bench", *tiny(output="small/bench.h5"))
        before = open("small/bench.h5", "rb").read()
        with open("small/ballast", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        for ranks in (1, 2):
            refused(*tiny(output="small/bench.h5"), says="No space left", ranks=ranks, code=1)
        assert open("small/bench.h5", "rb").read() == before
    finally:
        subprocess.run(["umount", "small"], check=False)
        shutil.rmtree("small", ignore_errors=True)


if __name__ == "__main__":
    harness.main(globals())

#!/usr/bin/python3
"""A disk that fails (faults/faults.cpp, preloaded): what is told, what is tried again, and when a run gives up."""

import os
import shutil
import sys

if "RF_FAULTS" not in os.environ:
    sys.exit("faults_test: RF_FAULTS, the library of faults, is not given")

from fault_campaign import start  # noqa: E402
from harness import main, prepare, run, sets, state, tiny  # noqa: E402


def pretrain(folder, under="checkpoints/step-", ranks=1, settings=None, **faults):
    return start("pretrain", *tiny(folder, **(settings or {})), ranks=ranks, folder=f"{folder}/{under}", **faults)


def lines(text, word):
    return [line for line in text.splitlines() if word in line]


def test_full_disk_is_told_and_ends_the_run_after_as_many_failures_as_are_allowed():
    prepare()
    for ranks in (1, 2):
        folder = f"full{ranks}"
        run("pretrain", *tiny(folder, steps=2, checkpoint_every=1))
        before = state(folder)
        code, text, _ = pretrain(folder, ranks=ranks, settings=dict(steps=10, checkpoint_every=1, checkpoint_failures_allowed=2), error="ENOSPC", at=1, count=0)
        assert code == 1, text
        assert len(lines(text, "warning: the checkpoint of step")) == 2 and len(lines(text, "error:")) == 1, text
        assert "3 in a row failed (checkpoint_failures_allowed = 2)" in text and "No space left on device" in lines(text, "error:")[0], text
        assert state(folder) == before
        run("pretrain", *tiny(folder))
        run("pretrain", *tiny(f"{folder}-undisturbed"))
        assert state(folder) == state(f"{folder}-undisturbed")


def test_no_failure_allowed_ends_the_run_at_the_first():
    prepare()
    code, text, _ = pretrain("strict", settings=dict(checkpoint_failures_allowed=0), at=3)
    assert code == 1 and len(lines(text, "error:")) == 1 and not lines(text, "warning:"), text
    assert "could not be written" in text and "Input/output error" in text, text


def test_last_checkpoint_is_tried_again():
    prepare()
    code, text, _ = pretrain("last", settings=dict(steps=5), at=4)
    assert code == 0 and len(lines(text, "warning:")) == 1, text
    run("pretrain", *tiny("last-undisturbed", steps=5))
    assert state("last") == state("last-undisturbed")


def test_old_checkpoint_that_cannot_be_removed_is_told_and_removed_later():
    prepare()
    settings = dict(keep=1, checkpoint_every=2)
    code, text, _ = pretrain("kept", settings=settings, calls="unlink", at=1)
    assert code == 0 and len(lines(text, "warning: older checkpoints")) == 1 and "Input/output error" in text, text
    run("verify", "kept")
    run("pretrain", *tiny("kept", **{**settings, "steps": 12}))
    assert os.listdir("kept/checkpoints") == ["step-00000012"]


def test_checkpoint_waits_for_rows_that_the_disk_does_not_take():
    """Rows and checkpoint belong together: without the rows no checkpoint is begun, so that no restart leaves a hole."""
    prepare()
    code, text, _ = pretrain("rows", under="results.jsonl", settings=dict(steps=10, checkpoint_every=2, checkpoint_failures_allowed=1), error="ENOSPC",
                             calls="write", at=4, count=0)
    assert code == 1 and len(lines(text, "error:")) == 1 and "waits for the results" in text, text
    assert os.listdir("rows/checkpoints") == ["step-00000002"]
    run("pretrain", *tiny("rows", steps=10, checkpoint_every=2))
    assert "table /train: 10 rows" in run("inspect", "rows")
    # For a while only: the rows are made up for.
    code, text, _ = pretrain("gap", under="results.jsonl", settings=dict(steps=10, checkpoint_every=5), error="ENOSPC", calls="write", at=3, count=2)
    assert code == 0 and len(lines(text, "warning:")) == 1 and "rows are kept in memory" in text, text
    assert "table /train: 10 rows" in run("inspect", "gap")
    assert state("gap") == state("rows")


def test_torn_renames_and_slow_disks_change_nothing():
    prepare()
    run("pretrain", *tiny("plain"))
    for kind, calls in (("TORN", "rename"), ("SHORT", "write,pwrite"), ("SLOW", "fsync")):
        code, text, seen = pretrain(f"odd{kind}", error=kind, calls=calls, at=1, count=0 if kind != "TORN" else 1)
        assert code == 0 and any(fails for *_, fails in seen), text
        assert state(f"odd{kind}") == state("plain")


def test_build_corpus_names_the_file_and_continues():
    prepare()
    words = sets(text="text.txt", vocab="vocab.txt", output="shards", segmenter__name="none")
    code, text, _ = start("build-corpus", *words, ranks=2, folder="/shards/.partial/corpus-", error="ENOSPC", at=3, count=0)
    assert code == 1 and len(lines(text, "error:")) == 1 and "shards/.partial/corpus-" in text and "No space left" in text, text
    assert not os.path.exists("shards/corpus.json")
    run("build-corpus", *words)
    assert "all agree" in run("verify", "shards")
    shutil.rmtree("shards")


if __name__ == "__main__":
    main(globals())

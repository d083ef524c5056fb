#!/usr/bin/env python3
"""Updates that are not finite, and working on an update once more: what a run says and leaves of them, on one rank and several."""

import os
import re

import h5py

import harness
from harness import prepare, run, tiny


def column(folder, name):
    with h5py.File(f"{folder}/results.h5") as f:
        return list(f[name][:])


def snapshot(folder):
    """Every file with its time and size."""
    return {os.path.join(at, name): (os.stat(os.path.join(at, name)).st_mtime_ns, os.path.getsize(os.path.join(at, name)))
            for at, _, names in os.walk(folder) for name in names}


def test_updates_that_are_not_finite_are_left_out_noted_and_end_the_run_when_too_many():
    prepare()
    for ranks in (1, 2):
        folder = f"nan{ranks}"
        settings = tiny(folder, optimizer__lr=1e30, schedule__lr="[[0,1]]", skips_allowed=2, checkpoint_every=100)
        text = run("pretrain", *settings, ranks=ranks, expect=1)
        assert text.count("warning: update") == 2, text
        assert re.search(r"warning: update 2 \(samples 16 to 31; replay=2 works on it again\) is left out: loss \S+, gradient of \S+ \(lane \d, on rank \d\)", text), text
        assert re.search(r"update 4 is not finite: .*nor of the 2 before it \(skips_allowed\)", text), text
        assert column(folder, "events/step") == [2, 3] and column(folder, "events/kind") == [1, 1] and column(folder, "events/first_sample") == [16, 32]
        before = snapshot(folder)
        again = run("pretrain", *settings, "--set", "replay=3", ranks=ranks)
        assert re.search(r"update 3: loss .*left out: loss \S+, gradient of", again) and "|gradient|, |weights| and |change|, tensor by tensor" in again, again
        assert snapshot(folder) == before


def test_a_replay_has_the_numbers_of_the_run_and_writes_nothing():
    prepare()
    settings = tiny("whole", steps=10)
    run("pretrain", *settings)
    loss, norm, rate, before = *(column("whole", f"train/{name}") for name in ("loss", "grad_norm", "lr")), snapshot("whole")
    for update, start, ranks in ((8, 5, 1), (3, 0, 1), (8, 5, 4), (10, 5, 2)):
        text = run("pretrain", *settings, "--set", f"replay={update}", ranks=ranks)
        assert f"from the state after {start};" in text, text
        assert f"update {update}: loss {loss[update - 1]:.9g}, |g| {norm[update - 1]:.9g}," in text, (loss[update - 1], norm[update - 1], text)
        norms = [[float(word) for word in line.split()[:3]] for line in text.split("tensor by tensor:")[1].splitlines() if line.strip()]
        assert abs(sum(gradient * gradient for gradient, _, _ in norms) ** 0.5 / norm[update - 1] - 1) < 1e-3, text
        # LAMB changes every tensor by the learning rate.
        assert all(abs(change / weights / rate[update - 1] - 1) < 1e-2 for _, weights, change in norms), (rate[update - 1], text)
    assert snapshot("whole") == before


def test_ranks_are_compared_and_the_self_check_changes_nothing():
    prepare()
    run("pretrain", *tiny("plain", steps=10), ranks=2)
    run("pretrain", *tiny("checked", steps=10, self_check_every=3), ranks=2)
    assert harness.state("plain") == harness.state("checked")
    assert column("plain", "ranks/step") == [5, 5, 10, 10] and column("plain", "ranks/rank") == [0, 1, 0, 1] and column("plain", "ranks/updates") == [5] * 4
    walls, own = column("plain", "ranks/seconds_p50"), column("plain", "ranks/own_p50")
    assert all(0 < mine <= wall for mine, wall in zip(own, walls)), (own, walls)
    with h5py.File("plain/results.h5") as f:
        assert len(f["events/step"]) == 0


if __name__ == "__main__":
    harness.main(globals())

#!/usr/bin/python3
"""Lets every call that changes a file fail once, one after the other, and looks at what is left: the checkpoints before stay whole, one
message names file and reason, the run goes on, and what it ends with is what an undisturbed run ends with. Prints a table.

    fault_campaign.py [--short] [--kinds EIO,ENOSPC,...] [--parts checkpoint,results,corpus]

Checkpoints: one run of many, in which the n-th odd one meets its fault at its n-th call, on either of two ranks; every even one must succeed.
Results and corpus shards: a run for each call; then the same command again. --short takes one kind of fault and a sample of the calls. Needs
ROFORMER and RF_FAULTS, the library of faults (default: those of build/cpu-release)."""

import argparse
import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("RF_SOURCE_DIR", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
os.environ.setdefault("ROFORMER", os.path.join(os.environ["RF_SOURCE_DIR"], "build/cpu-release/roformer"))
os.environ.setdefault("RF_FAULTS", os.path.join(os.environ["RF_SOURCE_DIR"], "build/cpu-release/tests/system/faults/librf_faults.so"))
for name, value in (("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"), ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
                    ("OMPI_MCA_hwloc_base_binding_policy", "none")):
    os.environ.setdefault(name, value)

from harness import ROFORMER, prepare, run, sets, state, tiny  # noqa: E402

REASONS = {"EIO": "Input/output error", "ENOSPC": "No space left on device", "EDQUOT": "Disk quota exceeded", "EROFS": "Read-only file system",
           "TORN": "Input/output error"}
HARMLESS = ("SHORT", "SLOW")  # a caller that does its part loses nothing


def start(*words, ranks=1, timeout=600, **faults):
    """Exit code, text and the calls that counted, each as (number, call, path, whether it failed)."""
    log = os.path.abspath("faults.log")
    if os.path.exists(log):
        os.remove(log)
    env = {"LD_PRELOAD": os.environ["RF_FAULTS"], "FAULT_LOG": log, **{f"FAULT_{key.upper()}": str(value) for key, value in faults.items()}}
    command = [ROFORMER, *map(str, words)]
    if ranks > 1:
        command = ["mpirun", "-n", str(ranks), *[w for key, value in env.items() for w in ("-x", f"{key}={value}")], *command]
        env = {}  # not of mpirun itself
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, env={**os.environ, **env})
    calls = []
    if os.path.exists(log):
        for line in open(log, encoding="utf-8"):
            number, call, path = line.split(" ", 2)
            path = path.rstrip("\n")
            failed = path.endswith(" FAILS")
            calls.append((int(number), call, path.removesuffix(" FAILS"), failed))
    return done.returncode, done.stdout.decode("utf-8", "replace"), calls


def step_of(path):
    return int(re.search(r"step-(\d+)", path).group(1))


def sites_of_checkpoint(settings, rank):
    """The calls of one checkpoint, in order."""
    code, text, calls = start("pretrain", *tiny("counted", **{**settings, "steps": 2}), ranks=2, folder="counted/checkpoints/step-", rank=rank)
    assert code == 0, text
    shutil.rmtree("counted")
    return [(call, path) for _, call, path, _ in calls if step_of(path) == 1]


def sweep_checkpoint(kind, rank, sample=1):
    """Every call of a checkpoint on one rank fails once. Returns (calls, faults, messages)."""
    settings = dict(model__num_hidden_layers=1, checkpoint_every=1, eval_every=100000, log_every=100000, keep=100000, checkpoint_failures_allowed=2)
    sites = sites_of_checkpoint(settings, rank)
    steps = 2 * len(sites) + 2
    folder = f"sweep-{kind}-{rank}"
    calls_hit = {"calls": "rename"} if kind == "TORN" else {}
    code, text, calls = start("pretrain", *tiny(folder, **{**settings, "steps": steps}), ranks=2, folder=f"{folder}/checkpoints/step-", error=kind, sweep=1,
                              rank=rank, **calls_hit)
    assert code == 0, f"exit code {code}\n{text}"
    failed = {step_of(path): (call, path) for _, call, path, fails in calls if fails}
    expected = sum(call == "rename" for call, _ in sites) if kind == "TORN" else len(sites)
    assert len(failed) == expected, f"{len(failed)} faults, {expected} calls to fail\n{text}"
    warnings = collections.Counter()
    for line in text.splitlines():
        if "warning:" in line or "error" in line.lower():
            told = re.search(r"warning: the checkpoint of step (\d+) could not be written", line)
            assert told, f"a message of another kind: {line}"
            warnings[int(told.group(1))] += 1
            call, path = failed[int(told.group(1))]
            name = os.path.basename(path).removesuffix(".partial")
            assert name in line and REASONS[kind] in line, f"{call} of {path} failed, the message: {line}"
    assert set(warnings.values()) <= {1}, f"told more than once: {warnings}"
    there = {step_of(name) for name in os.listdir(f"{folder}/checkpoints")}
    # What is not told has done no harm: HDF5 looks for a file before it makes it, and that look may fail. What is told may yet stand, when its
    # name was given and only the flush behind it failed.
    untold = set(failed) - set(warnings)
    assert kind in HARMLESS or all(failed[s][0] == "open" for s in untold), f"not told: {[failed[s] for s in untold]}"
    assert {s for s in range(1, steps + 1) if s not in failed} | untold <= there, "a checkpoint without harm is missing"
    assert not [name for name in os.listdir(f"{folder}/checkpoints") if name.endswith(".partial")]
    assert "all agree" in run("verify", f"{folder}/checkpoints", ranks=2)
    run("pretrain", *tiny("undisturbed", **{**settings, "steps": steps, "checkpoint_every": steps}))
    assert state(folder) == state("undisturbed")
    shutil.rmtree(folder)
    shutil.rmtree("undisturbed")
    return len(sites), len(failed), sum(warnings.values())


def each_call(name, words, folder, kind, stride, count, check, ranks=1):
    """A start for every `stride`-th call under `folder`, which fails (`count` 0: with all after it); then the same command again."""
    code, text, calls = start(*words(name), ranks=ranks, folder=folder(name))
    assert code == 0, text
    total, faults, told = len(calls), 0, 0
    shutil.rmtree(name)
    for at in range(1, total + 1, stride):
        code, text, calls = start(*words(name), ranks=ranks, folder=folder(name), error=kind, at=at, count=count)
        hit = [(call, path) for _, call, path, fails in calls if fails]
        if kind == "TORN" and not any(call == "rename" for call, _ in hit):
            hit = []
        context = f"{kind} at call {at} {hit[:1]}: exit code {code}\n{text}"
        faults += bool(hit)
        messages = [line for line in text.splitlines() if "error:" in line or "warning:" in line]
        if not hit or kind in HARMLESS:
            assert code == 0 and not messages, context
        else:
            told += len(messages)
            # No word is needed where the next call made up for it at once; `check` sees that nothing is missing. What lasts is told at
            # every checkpoint, and once more when the run gives up.
            errors = [line for line in messages if "error:" in line]
            assert code in (0, 1, 2) and len(errors) == (code != 0) and (count == 0 or len(messages) <= 1), context
            base = os.path.basename(hit[0][1]).removesuffix(".partial")
            assert all(REASONS[kind] in line and (base in line or name in line) for line in messages), context
        check(name, code, context)
        run(*words(name))
        check(name, 0, context)
        shutil.rmtree(name)
    return total, faults, told


def sweep_results(kind, stride, count):
    settings = dict(steps=4, checkpoint_every=2, eval_every=2)
    if not os.path.exists("results-reference"):
        run("pretrain", *tiny("results-reference", **settings))
    import h5py

    def check(name, code, context):
        if code != 0:
            if os.path.exists(f"{name}/checkpoints") and any(n.startswith("step-") for n in os.listdir(f"{name}/checkpoints")):
                run("verify", name)
            return
        assert state(name) == state("results-reference"), context
        with h5py.File(f"{name}/results.h5", "r") as file:
            assert list(file["train/step"][:]) == [1, 2, 3, 4], context

    return each_call("results", lambda name: ("pretrain", *tiny(name, **settings)), lambda name: f"{name}/results", kind, stride, count, check)


def sweep_corpus(kind, stride, count):
    def words(name):
        return ("build-corpus", *sets(text="text.txt", vocab="vocab.txt", output=name, segmenter__name="none", shard_tokens=3000))

    if not os.path.exists("corpus-reference"):
        run(*words("corpus-reference"))

    def check(name, code, context):
        if code != 0 and not os.path.exists(f"{name}/corpus.json"):
            return
        # With an error it may have got its name only where that rename itself is said to fail, the flush of the folder behind it, or the removal of
        # what is no longer needed; then it is whole.
        assert code == 0 or any(f"('{call}', " in context for call in ("rename", "fsync", "unlink", "rmdir")), context
        for file in os.listdir("corpus-reference"):
            assert open(f"{name}/{file}", "rb").read() == open(f"corpus-reference/{file}", "rb").read(), f"{file} differs; {context}"

    return each_call("shards", words, lambda name: f"/{name}", kind, stride, count, check)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--kinds", default="EIO,ENOSPC,EDQUOT,EROFS,SHORT,TORN,SLOW")
    parser.add_argument("--parts", default="checkpoint,results,corpus")
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="roformer-faults-")
    os.chdir(folder)
    kinds, parts = args.kinds.split(","), args.parts.split(",")
    if args.short:
        kinds = ["EIO"]
    print("| what | fault | calls | met a fault | messages | seconds |\n| --- | --- | --- | --- | --- | --- |", flush=True)

    def row(what, kind, work):
        begin = time.monotonic()
        sites, faults, told = work()
        print(f"| {what} | {kind} | {sites} | {faults} | {told} | {time.monotonic() - begin:.0f} |", flush=True)

    try:
        prepare(60)
        for kind in kinds:
            if "checkpoint" in parts:
                for rank in (0,) if args.short else (0, 1):
                    row(f"checkpoint, rank {rank} of 2", kind, lambda: sweep_checkpoint(kind, rank))
            for count, lasting in ((1, ""),) if args.short else ((1, ""), (0, ", lasting")):
                if count == 0 and kind in HARMLESS:
                    continue
                if "results" in parts:
                    row("journal and results.h5", kind + lasting, lambda: sweep_results(kind, 7 if args.short else 1, count))
                if "corpus" in parts:
                    row("build-corpus", kind + lasting, lambda: sweep_corpus(kind, 11 if args.short else 1, count))
    finally:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

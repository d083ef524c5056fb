#!/usr/bin/python3
"""Every way to split a model writes a checkpoint, every other reads it, writes it again and trains on from it: the state read is the state
written, bit for bit, and an update more lands where it does without the change of split (to rounding, between tensor splits).

    reshard_matrix.py [--tensor 1,2,4] [--data 1,2,4] [--device cpu|cuda]

Needs ROFORMER and RESHARD_TOOL (default: those of build/cpu-release; `--device cuda` takes those of build/emulated or a GPU's)."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("RF_SOURCE_DIR", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
os.environ.setdefault("ROFORMER", os.path.join(os.environ["RF_SOURCE_DIR"], "build/cpu-release/roformer"))
os.environ.setdefault("RESHARD_TOOL", os.path.join(os.environ["RF_SOURCE_DIR"], "build/cpu-release/tests/system/reshard_tool"))
for name, value in (("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"), ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
                    ("OMPI_MCA_hwloc_base_binding_policy", "none"), ("OMPI_MCA_mpi_yield_when_idle", "1"), ("RF_EMULATOR_DEVICES", "16")):
    os.environ.setdefault(name, value)

from harness import prepare, run, state, tiny  # noqa: E402


def loss(folder, step):
    import h5py

    with h5py.File(f"{folder}/results.h5", "r") as file:
        return float(file["train/loss"][list(file["train/step"][:]).index(step)])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tensor", default="1,2,4")
    parser.add_argument("--data", default="1,2,4")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    splits = [(int(t), int(d)) for t in args.tensor.split(",") for d in args.data.split(",")]
    folder = tempfile.mkdtemp(prefix="roformer-reshard-")
    os.chdir(folder)
    begin = time.monotonic()
    try:
        prepare(60)
        # One head of a prime size beside the even ones: parts of unequal size.
        settings = dict(steps=3, checkpoint_every=3, eval_every=1000, model__intermediate_size=130, device=args.device)
        name = lambda split: f"tp{split[0]}dp{split[1]}"  # noqa: E731
        written, losses = {}, {}
        for split in splits:
            run("pretrain", *tiny(name(split), parallel__tensor=split[0], **settings), ranks=split[0] * split[1])
            written[split] = state(name(split))
            shutil.copytree(name(split), "straight")
            run("pretrain", *tiny("straight", parallel__tensor=split[0], **{**settings, "steps": 4}), ranks=split[0] * split[1])
            losses[split] = loss("straight", 4)
            shutil.rmtree("straight")
        for split in splits:  # data ranks change no bit
            assert written[split] == written[(split[0], splits[0][1])], f"{name(split)} differs from another number of data ranks"
        pairs = 0
        print("| written by | " + " | ".join(f"read by TP {t} DP {d}" for t, d in splits) + " |\n| --- |" + " --- |" * len(splits))
        for writer in splits:
            cells = []
            for reader in splits:
                shutil.copytree(name(writer), "moved")
                source = f"{name(writer)}/checkpoints/step-00000003"
                done = subprocess.run(["mpirun", "-n", str(reader[0] * reader[1]), os.environ["RESHARD_TOOL"], source, "again", str(reader[0]), args.device],
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
                assert done.returncode == 0, done.stdout.decode()
                assert state("again") == written[writer], f"written by {name(writer)}, read and written by {name(reader)}: another state"
                run("pretrain", *tiny("moved", parallel__tensor=reader[0], **{**settings, "steps": 4}), ranks=reader[0] * reader[1])
                difference = abs(loss("moved", 4) - losses[writer])
                assert difference < (1e-12 if reader[0] == writer[0] else 1e-5), f"{name(writer)} to {name(reader)}: the next loss differs by {difference}"
                cells.append("equal")
                pairs += 1
                shutil.rmtree("moved")
                shutil.rmtree("again")
            print(f"| TP {writer[0]} DP {writer[1]} | " + " | ".join(cells) + " |", flush=True)
        print(f"{pairs} pairs: states equal, training goes on; {time.monotonic() - begin:.0f} s")
    finally:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

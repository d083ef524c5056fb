"""Trains what compare_alpha.sh describes, an arm after the other, then makes the page."""

import argparse
import json
import os
import re
import sys

from comparison import SOURCE, Comparison, Progress, above_zero, add_common, guarded, numbers, rates, rising_and_falling, sets

sys.path.insert(0, str(SOURCE / "postprocess"))  # the page is made by the module of the same name there


RESIDUALS = ("plain", "alpha", "rezero", "depth", "depth_alpha")


def arguments():
    parser = argparse.ArgumentParser(prog="compare_alpha")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--depths", type=numbers, default=[6, 12, 24, 48])
    parser.add_argument("--rates", type=rates, default=[0.5e-3, 2e-3])
    parser.add_argument("--seeds", type=numbers, default=[1, 2, 3])
    parser.add_argument("--warmups", type=numbers, default=[100, 400])
    parser.add_argument("--residuals", type=str.split, default=list(RESIDUALS))
    parser.add_argument("--updates", type=above_zero, default=400)
    parser.add_argument("--hidden", type=above_zero, default=128)
    parser.add_argument("--sequences", type=above_zero, default=32)
    parser.add_argument("--length", type=above_zero, default=64)
    parser.add_argument("--set", action="append", default=[], dest="more")
    add_common(parser, "runs/compare_alpha")
    return parser.parse_args()


def arms_of(residuals, warmups):
    """Name -> (model, schedule.alpha): what the arms differ in."""
    alpha = lambda updates: f"[[0,0],[{updates},1]]"
    kinds = {"plain": {"plain post-norm": ({"residual_mode": "plain"}, None)},
             "alpha": {f"alpha over {updates}": ({"residual_mode": "alpha"}, alpha(updates)) for updates in warmups},
             "rezero": {"ReZero": ({"residual_mode": "rezero"}, None)},
             "depth": {"depth-scaled start": ({"residual_mode": "plain", "init_mode": "depth"}, None)},
             "depth_alpha": {f"depth-scaled, alpha over {warmups[0]}": ({"residual_mode": "alpha", "init_mode": "depth"}, alpha(warmups[0]))}}
    return {name: arm for residual in residuals for name, arm in kinds[residual].items()}


def folder_of(depth, rate, arm, seed):
    return f"depth-{depth:03d}/{re.sub('[^a-z0-9]+', '_', arm.lower())}/rate-{rate:g}/seed-{seed}"


def main():
    a, comparison = arguments(), Comparison("compare_alpha")
    for path in (a.corpus, a.vocab):
        if not os.path.exists(path):
            comparison.refuse(f"{path} is not there")
    if a.hidden % 32:
        comparison.refuse(f"--hidden: expected a multiple of 32 (the size of a head), found {a.hidden}")
    if unknown := [residual for residual in a.residuals if residual not in RESIDUALS] or not a.residuals:
        comparison.refuse(f"--residuals: expected some of {', '.join(RESIDUALS)}, found {' '.join(unknown) if a.residuals else 'none'}")
    comparison.prepare(a.output)
    arms = arms_of(a.residuals, a.warmups)
    # One seed of everything first: what is there when time runs out compares all arms.
    jobs = [(depth, rate, arm, seed) for seed in a.seeds for depth in a.depths for rate in a.rates for arm in arms]
    print(f"compare_alpha: {len(jobs)} runs of {a.updates} updates of {a.sequences} x {a.length} into {a.output}", flush=True)
    progress = Progress(len(jobs))
    for depth, rate, arm, seed in jobs:
        model, alpha = arms[arm]
        folder = a.output / folder_of(depth, rate, arm, seed)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"model": json.dumps({"file": str(SOURCE / "inputs/model/tiny.json"), "hidden_size": a.hidden, "num_attention_heads": a.hidden // 32, "intermediate_size": 4 * a.hidden,
                                         "num_hidden_layers": depth, **model}),
                    "corpus": a.corpus, "vocab": a.vocab, "output": folder, "seed": seed, "steps": a.updates, "batch.sequences": a.sequences, "batch.max_length": a.length, "batch.lanes": 2,
                    "optimizer.lr": rate, "schedule.lr": rising_and_falling(a.updates), "checkpoint_every": a.updates, "eval_every": a.updates, "log_every": a.updates,
                    "skips_allowed": 0, "parallel.threads": a.threads, "device": a.device, "evaluation.documents": 200}
        if alpha:
            settings["schedule.alpha"] = alpha
        words = ["pretrain", *sets(settings), *(word for one in a.more for word in ("--set", one))]
        (folder / "arm.json").write_text(json.dumps({"depth": depth, "rate": rate, "arm": arm, "seed": seed, "updates": a.updates}) + "\n")
        code, text = comparison.run(a.ranks, words, folder / "output.txt")
        # An arm that diverges says so and ends with 1; that is a result.
        if code == 1 and "is not finite" in text:
            (folder / "diverged").write_text(text[text.index("update "):].splitlines()[0] + "\n")
            found = "not finite"
        elif code:
            comparison.give_up(text, folder, code)
        else:
            found = next((line.split(": ", 1)[1] for line in reversed(text.splitlines()) if line.startswith("held out at step")), "there")
            if seed == a.seeds[0] and not (folder / "norms.txt").exists():
                _, text = comparison.run(a.ranks, [*words, "--set", f"replay={max(1, a.updates // 2)}"], folder / "output.txt")
                (folder / "norms.txt").write_text(text.split("tensor by tensor:\n", 1)[-1])
        progress.tell(f"{depth} layers, {rate:g}, {arm}, seed {seed}: {found.split('  ')[0]}")
    import compare_alpha
    compare_alpha.write_page(a.output, a.output / "compare_alpha.html")


if __name__ == "__main__":
    guarded("compare_alpha", main)

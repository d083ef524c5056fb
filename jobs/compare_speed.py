"""Measures what compare_speed.sh describes: rounds of `roformer bench` into one bench.h5, then the page."""

import argparse
import collections
import json
import sys

from comparison import OTHER_FAMILY, SOURCE, Comparison, Progress, above_zero, add_common, guarded, numbers, sets, words

sys.path.insert(0, str(SOURCE / "postprocess"))  # the page is made by the module of the same name there
from bench_file import read  # noqa: E402

COMPARISON = Comparison("compare_speed")
# What a family is made of stands in src/model/config.hpp; here is only what goes with it: the vocabulary of its released models.
FAMILIES = {"roformer_v2": {}, "roformer": {}, "bert": {"vocab_size": 21128}, "roberta": {"vocab_size": 21128}}
# RoFormerV2 with one thing of BERT's at a time, then with all of them.
SWITCHES = {"roformer_v2": {}, "biases": {"biases": "on"}, "gain of the norms": {"norm_gain": "on"}, "mean of the norms": {"norm": "layer"},
            "GELU": {"hidden_act": "gelu"}, "learned positions": {"positions": "learned"}, "head with dense and norm": {"mlm_head": "transform"},
            "all of these": {"biases": "on", "norm_gain": "on", "norm": "layer", "hidden_act": "gelu", "positions": "learned", "mlm_head": "transform"}}


def arguments():
    parser = argparse.ArgumentParser(prog="compare_speed")
    parser.add_argument("--sizes", type=words, default=["base"])
    parser.add_argument("--lengths", type=numbers, default=[128, 512])
    parser.add_argument("--families", type=words, default=["roberta", "roformer_v2"])
    parser.add_argument("--switches", default="")
    parser.add_argument("--tokens", type=above_zero, default=1024)
    parser.add_argument("--rounds", type=above_zero, default=7)
    parser.add_argument("--steps", type=above_zero, default=3)
    parser.add_argument("--no-page", action="store_true")
    add_common(parser, "runs/compare_speed")
    a = parser.parse_args()
    for family in a.families:
        if family not in FAMILIES:
            COMPARISON.refuse(f"--families: {family} is none of {', '.join(FAMILIES)}")
    for size in a.sizes:
        if not (SOURCE / f"inputs/model/{size}.json").is_file():
            COMPARISON.refuse(f"--sizes: inputs/model/{size}.json is not there")
    a.switches = f"{a.sizes[0]}:{a.lengths[0]}" if not a.switches else a.switches
    if a.switches != "none":
        size, _, length = a.switches.partition(":")
        if not (SOURCE / f"inputs/model/{size}.json").is_file() or not length.isdigit():
            COMPARISON.refuse(f"--switches: expected a size and a length like base:128, or none; found \"{a.switches}\"")
    if any(a.tokens < length for length in a.lengths):
        COMPARISON.refuse(f"--tokens: {a.tokens} are less than one sequence of {max(a.lengths)}")
    return a


def arms_of(a):
    """(table, size, length, arm, model): each is a row of every round."""
    arms = []
    for size in a.sizes:
        for length in a.lengths:
            for family in a.families:
                other = {} if family == "roformer_v2" else {"family": family, **OTHER_FAMILY, **FAMILIES[family]}
                arms.append(("families", size, length, family, {"file": str(SOURCE / f"inputs/model/{size}.json"), **other, **fits(other, length)}))
    if a.switches != "none":
        size, _, length = a.switches.partition(":")
        arms += [("switches", size, int(length), name, {"file": str(SOURCE / f"inputs/model/{size}.json"), **change, **fits(change, int(length))}) for name, change in SWITCHES.items()]
    return arms


def fits(change, length):
    """Learned positions for the length, where that is more than the usual 512."""
    learned = change.get("positions") == "learned" or change.get("family") in ("bert", "roberta")
    return {"max_position_embeddings": length} if learned and length > 512 else {}


def label_of(a, arm):
    table, size, length, name, _ = arm
    # Not JSON as a whole: an input's text is taken as JSON where it is.
    return "compare_speed " + json.dumps({"compare": table, "size": size, "length": length, "arm": name, "tokens": a.tokens, "steps": a.steps, "ranks": a.ranks, "threads": a.threads,
                       "device": a.device}, sort_keys=True)


def main():
    a = arguments()
    COMPARISON.prepare(a.output)
    file, arms = a.output / "bench.h5", arms_of(a)
    there = collections.Counter(str(row.get("label", "")) for row in (read(file, COMPARISON.refuse) if file.exists() else []))
    left = []
    for number in range(1, a.rounds + 1):
        order = arms if number % 2 else arms[::-1]
        left += [(number, arm) for arm in order if there[label_of(a, arm)] < number]
    total = a.rounds * len(arms)
    print(f"compare_speed: {len(arms)} arms, {a.rounds} rounds into {file}: {total} measurements, {total - len(left)} of them there", flush=True)
    progress = Progress(len(left))
    for number, arm in left:
        table, size, length, name, model = arm
        settings = {"model": json.dumps(model), "batch.sequences": a.tokens // length, "batch.max_length": length, "steps": a.steps, "parallel.threads": a.threads, "device": a.device,
                    "label": label_of(a, arm), "output": file}
        code, text = COMPARISON.run(a.ranks, ["bench", *sets(settings)], a.output / "bench.log")
        if code:
            COMPARISON.give_up(text, f"round {number}, {size} x {length}, {name}", code)
        update = next((line for line in text.splitlines() if line.startswith("update ")), "").split(" (")[0]
        progress.tell(f"round {number}: {size} x {length}, {name}: {update}")
    if not a.no_page:
        import compare_speed
        compare_speed.write_page([file], a.output / "compare_speed.html")


if __name__ == "__main__":
    guarded("compare_speed", main)

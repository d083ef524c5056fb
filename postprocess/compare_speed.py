#!/usr/bin/python3
"""Families of encoders beside each other, and RoFormerV2's simplifications one at a time, from the measurements of jobs/compare_speed.sh:

    postprocess/compare_speed.py bench.h5 [of another machine.h5 ...] [-o compare_speed.html]

An arm's speed is its tokens/s over RoBERTa's (first table) or over RoFormerV2's (second) of the same round; shown are the median over the rounds and the least and the greatest.
The third part tells where an update's time differs, op by op, in milliseconds: medians over the rounds."""

import argparse
import html
import json
import os
import statistics
import sys

import h5py
from bench_file import columns, read
from pictures import figure, svg, table
from report import put_page, section

# The article's claim: base and large alike (RoFormerV2, Su 2022; on one GPU each).
ARTICLE = {128: 1.3, 512: 1.2}
# Names of ops by what they do.
KINDS = (("dense products", ("gemm",)), ("attention", ("attention",)), ("norms", ("add_norm", "layer_norm")), ("biases and activation", ("bias", "add_bias", "activation")),
         ("embedding and positions", ("embedding", "position", "add_position")), ("head and loss", ("softmax", "cross_entropy", "gather", "join_softmax")),
         ("optimizer", ("update_", "apply_", "gradient_sums", "judge", "join_sums")), ("sums and clearing", ("add", "fill", "copy", "cast")))


def fail(text):
    sys.exit(f"compare_speed.py: {text}")


def label_of(row):
    try:
        label = json.loads(str(row.get("label", "")).removeprefix("compare_speed ") or "null")
    except ValueError:
        return None
    return label if isinstance(label, dict) and "compare" in label else None


def kind_of(op):
    for kind, beginnings in KINDS:
        if op.startswith(beginnings):
            return kind
    return "else"


def op_times(path, rows):
    """Of every row of /bench the milliseconds of each kind of op in an update."""
    with h5py.File(path, "r") as file:
        ops = columns(file["kernels"])
        names = [name.decode() if isinstance(name, bytes) else name for name in ops["name"]]
        found = [{} for _ in rows]
        for row, name, seconds in zip(ops["measurement"], names, ops["seconds"]):
            times = found[int(row)]
            times[kind_of(name)] = times.get(kind_of(name), 0) + 1e3 * float(seconds)
    for row, times in zip(rows, found):
        times["between ops"] = max(0.0, 1e3 * row["seconds_per_step"] - sum(times.values()))
    return found


class Arm:
    """The rounds of one arm."""

    def __init__(self, name):
        self.name, self.rows, self.ops = name, [], []

    def rates(self):
        return [row["tokens_per_second"] for row in self.rows]

    def over(self, other):
        """Ratios of tokens/s, round by round."""
        return [mine / theirs for mine, theirs in zip(self.rates(), other.rates())]

    def time_of(self, kind):
        return statistics.median(ops.get(kind, 0.0) for ops in self.ops)


def groups_of(rows, ops):
    """(table, setup) -> arms in the order of the measurements; the setup is all of the label but the arm."""
    groups = {}
    for row, times in zip(rows, ops):
        label = label_of(row)
        if label is None:
            continue
        name = label.pop("arm")
        label |= {"device": row.get("device", ""), "processor": row.get("processor", ""), "dtype": row.get("dtype", "")}
        arms = groups.setdefault((label.pop("compare"), json.dumps(label, sort_keys=True)), {})
        arm = arms.setdefault(name, Arm(name))
        arm.rows.append(row)
        arm.ops.append(times)
    return groups


def place_of(label):
    """The GPU or the processors, and the numbers."""
    return f"{label['processor'] if label['device'] == 'cpu' else label['device']}, {label['dtype']}"


def ratio_text(ratios):
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})" if ratios else "–"


def families_part(groups):
    rows, lines, charts = [], [], []
    for (kind, setup), arms in groups.items():
        if kind != "families":
            continue
        label = json.loads(setup)
        base = arms.get("roberta") or arms.get("bert")
        for arm in arms.values():
            ratios = arm.over(base) if base and arm is not base else []
            article = ARTICLE.get(label["length"]) if arm.name == "roformer_v2" and base else None
            rows.append([place_of(label), label["size"], label["length"], arm.name, int(arm.rows[0].get("parameters", 0)), len(arm.rows), statistics.median(r["seconds_per_step"] for r in arm.rows),
                         statistics.median(arm.rates()), ratio_text(ratios) if ratios else "1" if arm is base else "–", f"{article}" if article else ""])
            lines.append(f"{place_of(label)}, {label['size']} x {label['length']}, {arm.name}: {figure(statistics.median(arm.rates()))} tokens/s" +
                         (f", {ratio_text(ratios)} times {base.name}" if ratios else "") + (f"; the article: {article}" if article else ""))
        if base and len(arms) > 1:
            charts.append((f"{label['device']}: {label['size']} x {label['length']}", arms, base))

    def draw(axes):
        at, names = 0, []
        for title, arms, base in charts:
            for arm in arms.values():
                ratios = arm.over(base)
                middle = statistics.median(ratios)
                axes.barh(at, middle, color="tab:blue" if arm.name == "roformer_v2" else "tab:gray", height=0.7,
                          xerr=[[middle - min(ratios)], [max(ratios) - middle]], error_kw={"linewidth": 1})
                names.append(f"{title}  {arm.name}")
                at += 1
            at += 0.5
        positions, at = [], 0
        for _, arms, _ in charts:
            positions += [at + i for i in range(len(arms))]
            at += len(arms) + 0.5
        axes.set_yticks(positions, names, fontsize=8)
        axes.invert_yaxis()
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xlabel("tokens/s over those of RoBERTa (BERT where that is not measured)")

    picture = f"<div class=wide>{svg(draw, wide=True)}</div>" if charts else ""
    header = ["on", "size", "length", "family", "parameters", "rounds", "update, s", "tokens/s", "times RoBERTa (least – greatest)", "the article"]
    return section("Families", picture + f"<div class=wide>{table(header, rows)}</div>") if rows else "", lines


def switches_part(groups):
    body, lines = "", []
    for (kind, setup), arms in groups.items():
        base = arms.get("roformer_v2")
        if kind != "switches" or base is None:
            continue
        label, rows = json.loads(setup), []
        for arm in arms.values():
            ratios = [1 / r for r in arm.over(base)]  # time over time
            rows.append([arm.name, int(arm.rows[0].get("parameters", 0)), len(arm.rows), statistics.median(r["seconds_per_step"] for r in arm.rows), ratio_text(ratios)])
            if arm is not base:
                lines.append(f"{label['size']} x {label['length']}, with {arm.name}: {ratio_text(ratios)} times the time of roformer_v2")
        header = ["RoFormerV2 with", "parameters", "rounds", "update, s", "times the time (least – greatest)"]
        body += section(f"One thing at a time: {label['size']} x {label['length']}, {place_of(label)}", f"<div class=wide>{table(header, rows)}</div>")
    return body, lines


def attribution_part(groups):
    body, lines = "", []
    for (kind, setup), arms in groups.items():
        ours, base = arms.get("roformer_v2"), arms.get("roberta") or arms.get("bert")
        if kind != "families" or not ours or not base:
            continue
        label, rows = json.loads(setup), []
        for name in [kind for kind, _ in KINDS] + ["else", "between ops"]:
            mine, theirs = ours.time_of(name), base.time_of(name)
            if mine or theirs:
                rows.append([name, theirs, mine, theirs - mine])
        lines += [f"{label['size']} x {label['length']}, {name}: {figure(theirs)} ms in {base.name}, {figure(mine)} in roformer_v2" for name, theirs, mine, _ in rows]
        header = ["ops", f"{base.name}, ms", "roformer_v2, ms", "difference, ms"]
        body += section(f"Where the difference is: {label['size']} x {label['length']}, {place_of(label)}", table(header, rows))
    return body, lines


NOTES = """<p>Measured are whole updates (forward, backward, LAMB) of random sequences of full length, at equal tokens an update; the least time that the article does not tell: its
batch sizes, its precision and its program. Its figures are of GPUs. BERT and RoBERTa have their released vocabulary of 21128 entries, RoFormer and RoFormerV2 theirs of 12000, so part of a
difference is the head's. What is measured stands here as it is, also where it contradicts the article.</p>"""


def write_page(paths, output):
    groups, programs = {}, []
    for path in paths:
        rows = read(path, fail)
        found = groups_of(rows, op_times(path, rows))
        if not found:
            fail(f"{path} holds no measurement of jobs/compare_speed.sh")
        if set(groups) & set(found):
            fail(f"{path} holds measurements of the same arms on the same machine as a file before it")
        groups |= found
        programs += [program for row in rows if (program := str(row.get("program", ""))) not in programs]
    parts = [families_part(groups), switches_part(groups), attribution_part(groups)]
    facts = html.escape(f"{', '.join(map(str, paths))}; {', '.join(programs)}")
    body = f"<h1>What the simplifications of RoFormerV2 bring in speed</h1><p class=sub>{facts}</p>{NOTES}" + "".join(part for part, _ in parts)
    put_page(output, "speed of families", body, fail)
    print("\n".join(line for _, lines in parts for line in lines))
    print(output)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bench", metavar="bench.h5", nargs="+")
    parser.add_argument("-o", "--output", help="default: compare_speed.html beside the first file")
    args = parser.parse_args()
    write_page(args.bench, args.output or os.path.join(os.path.dirname(args.bench[0]), "compare_speed.html"))


if __name__ == "__main__":
    main()

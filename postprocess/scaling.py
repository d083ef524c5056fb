#!/usr/bin/python3
"""Scaling of bench's measurements as one HTML page with its pictures inside: scaling.py bench.h5 [-o scaling.html]

Rows of /bench that differ in their round alone are one point: medians, with the least and the greatest beside them. Then, with p ranks where the
series' point of fewest ranks has p0, and a time t of an update where that has t0:
  strong scaling   equal sequences of an update: speed-up t0 / t, efficiency of p / p0 times the ranks, and the serial fraction
                   (1 / speed-up - p0 / p) / (1 - p0 / p) of Karp and Flatt
  weak scaling     equal sequences a rank: efficiency, tokens/s a rank over that of the first point
and everywhere the share of the update spent in collectives (waiting for other ranks included; on a GPU: in gradients and weights).
Prints the figures and the name of the page. --labels prints the label of every row instead."""

import argparse
import dataclasses
import html
import json
import math
import os
import statistics
import sys

import matplotlib.ticker
from bench_file import read
from pictures import figure, svg, table
from report import put_page, section

COLORS = ("tab:blue", "tab:red", "tab:green", "tab:orange", "tab:purple", "tab:brown", "tab:cyan", "tab:olive")
STYLES = ("-", "--", ":", "-.")


def fail(text):
    sys.exit(f"scaling.py: {text}")


def setup_of(row):
    """What must be equal for two rows to be compared, as the page shows it."""
    try:
        model, given = json.loads(row.get("model") or "{}"), json.loads(row.get("input") or "{}")
    except ValueError:
        model, given = {}, {}
    keys = (("L", "num_hidden_layers"), ("C", "hidden_size"), ("H", "num_attention_heads"), ("F", "intermediate_size"), ("V", "vocab_size"))
    shape = ", ".join(f"{letter} {model[key]}" for letter, key in keys if key in model)
    lanes = given.get("batch", {}).get("lanes", 0)
    corpus = given.get("corpus")
    number = lambda name: "" if math.isnan(row.get(name, math.nan)) else f"{int(row[name]):,}"
    length = f"{int(row['length'])} tokens" if not corpus else f"to {int(row['length'])} tokens, of {corpus}"
    facts = {"model": shape, "parameters": number("parameters"), "length": length,
             "lanes": str(lanes or "one a data rank"), "optimizer": given.get("optimizer", {}).get("name", ""), "compute type": row.get("dtype", ""),
             "device": row.get("device", ""), "threads a rank": number("threads"), "processor": row.get("processor", ""), "program": row.get("program", "")}
    # Equal shapes may still be different models.
    return json.dumps(model, sort_keys=True), tuple((name, text) for name, text in facts.items() if text)


@dataclasses.dataclass
class Point:
    """Rounds of one measurement."""
    ranks: int
    tensor: int
    sequences: int
    rows: list

    def all(self, name):
        return [float(row[name]) for row in self.rows]

    def median(self, name):
        return statistics.median(self.all(name))

    @property
    def seconds(self):
        return self.median("seconds_per_step")

    @property
    def communication(self):
        def share(row):
            collectives = row.get("seconds_collectives", math.nan)
            return (row["seconds_communication"] if math.isnan(collectives) else collectives) / row["seconds_per_step"]
        return statistics.median(map(share, self.rows))

    def spread(self, name):
        low, high = min(self.all(name)), max(self.all(name))
        return f"{figure(low)} – {figure(high)}" if len(self.rows) > 1 else ""


def points_of(rows):
    found = {}
    for row in rows:
        found.setdefault((int(row["ranks"]), int(row["tensor"]), int(row["sequences"])), []).append(row)
    return [Point(*key, same) for key, same in sorted(found.items())]


@dataclasses.dataclass
class Series:
    """Points to compare with the first of them, and what they have in common."""
    size: float
    points: list

    def more(self, point):
        """Times the ranks of the first."""
        return point.ranks / self.points[0].ranks

    def speedup(self, point):
        return self.points[0].seconds / point.seconds

    def strong(self, point):
        return self.speedup(point) / self.more(point)

    def weak(self, point):
        first = self.points[0]
        return point.median("tokens_per_second") / point.ranks / (first.median("tokens_per_second") / first.ranks)

    def serial(self, point):
        """Negative where the speed-up is more than linear."""
        p = self.more(point)
        return (1 / self.speedup(point) - 1 / p) / (1 - 1 / p) if p > 1 else math.nan


def series_of(points, size):
    """Groups of equal size(point) that have several numbers of ranks; those that have few of them met by chance and are left out."""
    found = {}
    for point in points:
        found.setdefault(size(point), []).append(point)
    enough = max(2, len({point.ranks for point in points}) / 2)
    return [Series(key, same) for key, same in sorted(found.items()) if len({point.ranks for point in same}) >= enough]


def draw_series(kind, unit, value, title, ideal=None, below_zero=False):
    """A line a series and tensor split, ranks across; `ideal` of how many times the ranks."""
    def draw(axes):
        ranks = sorted({point.ranks for series in kind for point in series.points})
        tensors = sorted({point.tensor for series in kind for point in series.points})
        for i, series in enumerate(kind):
            for j, tensor in enumerate(tensors):
                points = [point for point in series.points if point.tensor == tensor and math.isfinite(value(series, point))]
                if not points:
                    continue
                if points[0].ranks > series.points[0].ranks and math.isfinite(value(series, series.points[0])):
                    points.insert(0, series.points[0])  # all lines of a series start from what they are compared with
                name = f"{series.size:g} {unit}" + (f", tensor {tensor}" if len(tensors) > 1 else "")
                axes.plot([point.ranks for point in points], [value(series, point) for point in points], "o" + STYLES[j % len(STYLES)], label=name,
                          color=COLORS[i % len(COLORS)], markersize=4, linewidth=1.5, markerfacecolor="white" if j % 2 else None)
        if ideal:
            axes.plot(ranks, [ideal(r / ranks[0]) for r in ranks], color="gray", linewidth=1, linestyle=(0, (1, 2)), label="ideal")
        axes.set_xscale("log", base=2)
        axes.set_xticks(ranks, [str(r) for r in ranks])
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axes.set_xlim(ranks[0] / 1.1, ranks[-1] * 1.1)
        axes.set_xlabel("ranks")
        axes.set_ylabel(title)
        if title == "speed-up":  # straight lines, and as much room for few ranks as for many
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        else:
            axes.set_ylim(min(axes.get_ylim()[0], 0) if below_zero else 0, max(axes.get_ylim()[1], 0.01) * 1.03)
        axes.legend(frameon=False, fontsize=8, ncol=3, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    return f"<div><h3>{title.capitalize()}</h3>{svg(draw)}</div>"


def strong_part(kind):
    rows, lines = [], []
    for series in kind:
        for point in series.points:
            rows.append([int(series.size), point.ranks, point.tensor, len(point.rows), point.seconds, point.spread("seconds_per_step"),
                         point.median("tokens_per_second"), series.speedup(point), series.strong(point), series.serial(point), point.communication,
                         point.median("peak_fraction")])
            lines.append(f"strong: {int(series.size)} sequences, ranks {point.ranks}, tensor {point.tensor}: {figure(point.seconds)} s, "
                         f"speed-up {figure(series.speedup(point))}, efficiency {figure(series.strong(point))}, "
                         f"serial fraction {figure(series.serial(point))}, communication {figure(point.communication)}")
    header = ["sequences", "ranks", "tensor", "rounds", "update, s", "least – most", "tokens/s", "speed-up", "efficiency", "serial fraction", "communication",
              "peak fraction"]
    unit = "sequences"
    body = "<div class=grid>" + draw_series(kind, unit, Series.speedup, "speed-up", lambda times: times)
    body += draw_series(kind, unit, Series.strong, "efficiency", lambda _: 1)
    body += draw_series(kind, unit, lambda _, point: point.communication, "share of communication")
    body += draw_series(kind, unit, Series.serial, "serial fraction", below_zero=True) + "</div>"
    return section("Strong scaling: equal sequences of an update", body + f"<div class=wide>{table(header, rows)}</div>"), lines


def weak_part(kind):
    rows, lines = [], []
    for series in kind:
        for point in series.points:
            rows.append([f"{series.size:g}", point.ranks, point.tensor, point.sequences, len(point.rows), point.seconds, point.spread("seconds_per_step"),
                         point.median("tokens_per_second"), series.weak(point), point.communication, point.median("peak_fraction")])
            lines.append(f"weak: {series.size:g} sequences a rank, ranks {point.ranks}, tensor {point.tensor}: {figure(point.seconds)} s, "
                         f"efficiency {figure(series.weak(point))}, communication {figure(point.communication)}")
    header = ["sequences a rank", "ranks", "tensor", "sequences", "rounds", "update, s", "least – most", "tokens/s", "efficiency", "communication", "peak fraction"]
    unit = "a rank"
    body = "<div class=grid>" + draw_series(kind, unit, Series.weak, "efficiency", lambda _: 1)
    body += draw_series(kind, unit, lambda _, point: point.communication, "share of communication") + "</div>"
    return section("Weak scaling: equal sequences a rank", body + f"<div class=wide>{table(header, rows)}</div>"), lines


def part_of(facts, rows):
    """HTML and printed lines of the rows of one setup."""
    points = points_of(rows)
    strong, weak = series_of(points, lambda point: point.sequences), series_of(points, lambda point: point.sequences / point.ranks)
    body = table(["", ""], [[name, text] for name, text in facts])
    lines = [f"{name}: {text}" for name, text in facts]
    for kind, part in ((strong, strong_part), (weak, weak_part)):
        if kind:
            content, more = part(kind)
            body, lines = body + content, lines + more
    if not strong and not weak:
        note = "nothing to compare: no two measurements that differ in their number of ranks (jobs/scaling.sh makes a study)"
        body, lines = body + f"<p>{note}</p>", lines + [note]
        body += table(["ranks", "tensor", "sequences", "rounds", "update, s", "tokens/s"],
                      [[p.ranks, p.tensor, p.sequences, len(p.rows), p.seconds, p.median("tokens_per_second")] for p in points])
    return body, lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bench", metavar="bench.h5")
    parser.add_argument("-o", "--output", help="default: scaling.html beside the file")
    parser.add_argument("--labels", action="store_true", help="print the label of every row, and make no page")
    args = parser.parse_args()
    rows = read(args.bench, fail)
    if args.labels:
        print("\n".join(str(row.get("label", "")) for row in rows))
        return
    setups = {}
    for row in rows:
        setups.setdefault(setup_of(row), []).append(row)
    body, text = "", []
    for (_, facts), same in setups.items():
        content, lines = part_of(facts, same)
        body += f"<h1>Scaling</h1><p class=sub>{html.escape(args.bench)}, {len(same)} measurements</p>{content}"
        text += [f"{args.bench}, {len(same)} measurements:", *(f"  {line}" for line in lines)]
    output = args.output or os.path.join(os.path.dirname(args.bench), "scaling.html")
    put_page(output, f"scaling, {args.bench}", body, fail)
    print("\n".join([*text, output]))


if __name__ == "__main__":
    main()

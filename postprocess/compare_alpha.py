#!/usr/bin/python3
"""Residuals beside each other, from the runs of jobs/compare_alpha.sh: which converge, how far, and how large the gradients of their layers are.

    postprocess/compare_alpha.py FOLDER [-o compare_alpha.html]

A run converges when its held-out loss at the end is below that of the corpus' token frequencies (what a model that sees no context can reach) by a tenth of a nat. Shown are means and
deviations over the seeds."""

import html
import json
import math
import pathlib
import re
import statistics
import sys

import h5py
from pictures import figure, smooth, svg, table
from report import put_page, section, start_page_of_folder

import numpy as np

CONVERGED = 0.1  # nats below the token frequencies
COLORS = ("tab:gray", "tab:blue", "tab:cyan", "tab:green", "tab:orange", "tab:red", "tab:purple", "tab:brown")


def fail(text):
    sys.exit(f"compare_alpha.py: {text}")


class Training:
    """One run: its arm, and what it left."""

    def __init__(self, folder):
        self.folder = folder
        for key, value in json.loads((folder / "arm.json").read_text()).items():
            setattr(self, key, value)
        self.diverged = (folder / "diverged").exists()
        self.loss, self.step, self.held_out, self.unigram = np.array([]), np.array([]), math.nan, math.nan
        if (folder / "results.h5").exists():
            with h5py.File(folder / "results.h5", "r") as file:
                self.step, self.loss = file["train/step"][:], file["train/loss"][:]
                self.unigram = float(file["meta"].attrs.get("unigram_cross_entropy", math.nan))
                if len(file["eval/mlm/step"]) and file["eval/mlm/step"][-1] == self.updates:
                    self.held_out = float(file["eval/mlm/loss"][-1])

    @property
    def done(self):
        return self.diverged or not math.isnan(self.held_out)

    @property
    def converged(self):
        return not self.diverged and self.held_out < self.unigram - CONVERGED

    def norms(self):
        """Layer -> |gradient|, |weights| and |change| over all of its tensors, half-way."""
        path, squares = self.folder / "norms.txt", {}
        if path.exists():
            for line in path.read_text().splitlines():
                if found := re.match(r"\s*(\S+)\s+(\S+)\s+(\S+)\s+layer_(\d+)/", line):
                    *norms, layer = found.groups()
                    squares[int(layer)] = squares.get(int(layer), 0) + np.square(np.array(norms, dtype=float))
        return {layer: np.sqrt(square) for layer, square in sorted(squares.items())}


def read(folder):
    runs = [Training(path.parent) for path in sorted(pathlib.Path(folder).glob("depth-*/*/rate-*/seed-*/arm.json"))]
    if not runs:
        fail(f"{folder} holds no runs of jobs/compare_alpha.sh")
    return runs


def text_of(runs):
    done = [run for run in runs if run.done]
    if not done:
        return "–"
    good = [run.held_out for run in done if not run.diverged]
    values = f"{statistics.mean(good):.3f}" + (f" ± {statistics.stdev(good):.3f}" if len(good) > 1 else "") if good else "not finite"
    if good and len(good) < len(done):
        values += f", {len(done) - len(good)} not finite"
    return f"{values} ({sum(run.converged for run in done)} of {len(done)} converge)"


def write_page(folder, output):
    runs = read(folder)
    arms, depths, rates = (list(dict.fromkeys(getattr(run, key) for run in runs)) for key in ("arm", "depth", "rate"))
    select = lambda **want: [run for run in runs if all(getattr(run, key) == value for key, value in want.items())]
    unigram = next((run.unigram for run in runs if not math.isnan(run.unigram)), math.nan)
    body, lines = "", []
    for rate in rates:
        rows = [[arm, *(text_of(select(arm=arm, depth=depth, rate=rate)) for depth in depths)] for arm in arms]
        lines += [f"rate {rate:g}, {depth} layers, {arm}: {text}" for arm, *texts in rows for depth, text in zip(depths, texts)]
        body += section(f"Held-out loss at the end, learning rate {rate:g}", f"<div class=wide>{table(['residual', *(f'{depth} layers' for depth in depths)], rows)}</div>")

    def draw_losses(depth, rate):
        def draw(axes):
            for color, arm in zip(COLORS, arms):
                for i, run in enumerate(select(arm=arm, depth=depth, rate=rate)):
                    there = np.isfinite(run.loss)
                    if there.sum() > 3:
                        axes.plot(run.step[there], smooth(run.loss[there], max(2, there.sum() // 40)), color=color, linewidth=1.2, label=arm if i == 0 else None, alpha=0.9)
            if not math.isnan(unigram):
                axes.axhline(unigram, color="black", linewidth=0.8, linestyle=":", label="token frequencies")
            axes.set_xlabel("updates")
            axes.set_ylabel("training loss, nats")
            if axes.lines:
                axes.set_ylim(top=min(axes.get_ylim()[1], (0 if math.isnan(unigram) else unigram) + 3))
                axes.legend(frameon=False, fontsize=7)
        return f"<div><h3>{depth} layers, rate {rate:g}</h3>{svg(draw)}</div>"

    def draw_norms(depth, rate, what, of):
        def draw(axes):
            for color, arm in zip(COLORS, arms):
                measured = [norms for run in select(arm=arm, depth=depth, rate=rate) if (norms := run.norms())]
                for i, norms in enumerate(measured):
                    axes.plot(list(norms), [of(*norm) for norm in norms.values()], color=color, linewidth=1.2, label=arm if i == 0 else None)
            axes.set_xlabel("layer")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_ylabel(f"{what}, half-way")
            axes.set_yscale("log")
            if axes.lines:
                low, high = axes.get_ylim()
                if 0 < high < 10 * low:  # differences below this are none
                    axes.set_ylim(low / 3, high * 3)
                axes.legend(frameon=False, fontsize=7)
        return f"<div><h3>{depth} layers, rate {rate:g}</h3>{svg(draw)}</div>"

    body += section("Loss", "<div class=grid>" + "".join(draw_losses(depth, rate) for depth in depths for rate in rates) + "</div>")
    for title, what, of, remark in (
            ("Gradients by layer", "|gradient|", lambda gradient, weights, change: gradient, ""),
            ("Updates by layer", "|change| / |weights|", lambda gradient, weights, change: change / weights,
             "<p>LAMB changes each tensor by the learning rate's share of it, however small its gradient has become; another optimizer (--set optimizer.name=adamw) does not.</p>")):
        body += section(title, remark + "<div class=grid>" + "".join(draw_norms(depth, rate, what, of) for depth in depths for rate in rates) + "</div>")
    note = f"""<p>The article: plain post-norm with a start of gain 1 does not converge when deep; a residual weight that rises from 0 to 1 makes it converge, without the loss of quality that ReZero has
        (RoFormerV2, Su 2022). Here: {sum(run.done for run in runs)} of {len(runs)} runs, {runs[0].updates} updates each, the same schedule of the learning rate for all arms of a table; token frequencies alone reach
        {figure(unigram)} nats. Small models on little text: what converges in so few updates may differ from what does in a million.</p>"""
    head = f"<h1>Which residual converges</h1><p class=sub>{html.escape(str(folder))}</p>{note}"
    put_page(output, "residuals", head + body, fail)
    print("\n".join(lines))
    print(output)


if __name__ == "__main__":
    start_page_of_folder(__doc__, "compare_alpha", write_page)

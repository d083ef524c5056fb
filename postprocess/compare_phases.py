#!/usr/bin/python3
"""What simplification costs and what supervision wins back, from the runs of jobs/compare_phases.sh: the dev figures of four ways to spend one budget of pre-training.

    postprocess/compare_phases.py FOLDER [-o compare_phases.html]

A figure is that of the best epoch, in per cent; shown are means and deviations over the seeds. Differences are taken seed by seed."""

import html
import json
import os
import pathlib
import statistics
import sys

import clue_table
import numpy as np
from pictures import svg, table
from report import Results, labels_of, main_figure, put_page, section, start_page_of_folder

# What each way is called, and its folder.
ARMS = {"RoFormer, MLM": "roformer", "RoFormerV2, MLM": "mlm", "RoFormerV2, MLM then tasks": "tasks", "RoFormerV2, MLM then tasks, normalised": "tasks_normalised"}
COLORS = ("tab:gray", "tab:blue", "tab:orange", "tab:red")
DIFFERENCES = (("simplification: RoFormerV2 over RoFormer, both MLM", "mlm", "roformer"), ("supervision: MLM then tasks over MLM", "tasks", "mlm"),
               ("with normalised gradients over MLM", "tasks_normalised", "mlm"), ("normalised over not", "tasks_normalised", "tasks"))
# Published, of base size, by the columns of clue_table (RoFormerV2, Su 2022; the third is of CLUE's dev parts and stands in GAU-alpha's README; its cmrc2018 is another measure).
COLUMNS = [task for _, task, _, _ in clue_table.COLUMNS]
PUBLISHED = {"RoFormer, test": (61.08, 56.74, 73.82, 80.97, 73.10, 80.57, 84.93, 73.50, 66.29, 86.30, 79.69),
             "RoFormerV2, MLM then tasks, test": (62.50, 58.74, 75.63, 80.62, 74.23, 82.71, 84.17, 77.00, 75.57, 85.95, 79.87),
             "RoFormerV2, MLM, dev": (60.87, 56.54, 72.75, 80.34, 75.36, 80.92, 84.67, None, 64.62, 85.09, 81.08)}


def fail(text):
    sys.exit(f"compare_phases.py: {text}")


class Tuning:
    """The dev figure of one fine-tuning, and what its most frequent label would have."""

    def __init__(self, folder):
        results = Results(folder / "results.h5")
        dev = next(iter(results.evaluations.values()), {})
        self.metric = main_figure(dev)
        if not self.metric:
            fail(f"{folder}/results.h5 holds no dev figure")
        self.value, self.majority = float(np.max(dev[self.metric])), None
        labels = labels_of(results) if self.metric == "accuracy" else None
        if labels:
            self.majority = np.bincount(labels[0]).max() / len(labels[0])


def held_out_of(folder):
    return float(Results(folder / "results.h5").evaluations["mlm"]["loss"][-1])


def found_in(folder):
    """What a finished run came to, in a word."""
    if folder.parent.name != "tuned":
        return f"held out {held_out_of(folder):.4f} nats"
    tuning = Tuning(folder)
    return f"{tuning.metric} {tuning.value:.4f}"


class Study:
    """All that is done so far: figures[arm][task][seed], losses[arm][seed], tasks in the order of their making."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        if not (folder / "settings.json").exists():
            fail(f"{folder} holds no runs of jobs/compare_phases.sh")
        self.settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self.figures, self.losses = ({arm: {} for arm in ARMS.values()} for _ in range(2))
        self.metrics, self.majorities = {}, {}
        done = sorted(folder.glob("seed-*/*/**/done"), key=os.path.getmtime)
        for path in (path.parent for path in done):
            seed, arm, *rest = path.relative_to(folder).parts
            if arm not in self.figures:
                continue
            if rest == ["trained"]:
                self.losses[arm][seed] = held_out_of(path)
            else:
                tuning, task = Tuning(path), rest[-1]
                self.figures[arm].setdefault(task, {})[seed] = tuning.value
                self.metrics[task], self.majorities[task] = tuning.metric, tuning.majority
        if not any(self.losses.values()):
            fail(f"{folder} holds no finished run yet")
        self.tasks = list(self.metrics)
        self.seeds = sorted({seed for losses in self.losses.values() for seed in losses})

    def of(self, arm, task):
        """Figures by seed; of "mean" the mean over the tasks, of those seeds that have all."""
        if task != "mean":
            return self.figures[arm].get(task, {})
        seeds = [seed for seed in self.seeds if all(seed in self.figures[arm].get(one, {}) for one in self.tasks)]
        return {seed: statistics.mean(self.figures[arm][one][seed] for one in self.tasks) for seed in seeds} if self.tasks else {}

    def over(self, one, other, task):
        one, other = self.of(one, task), self.of(other, task)
        return [one[seed] - other[seed] for seed in one if seed in other]

    def picture(self):
        """A panel a task, each on its own scale, and one of the mean."""
        columns = [*self.tasks, "mean"]

        def draw(axes):
            whole = axes.figure
            axes.remove()
            for column, panel in zip(columns, whole.subplots(1, len(columns), squeeze=False)[0]):
                if (majority := self.majorities.get(column)) is not None:
                    panel.axhline(100 * majority, color="black", linewidth=1, linestyle=":", label="most frequent label")
                for at, (name, arm) in enumerate(ARMS.items()):
                    if values := [100 * value for value in self.of(arm, column).values()]:
                        panel.plot([at] * len(values), values, ".", color=COLORS[at], alpha=0.5)
                        panel.errorbar(at, statistics.mean(values), yerr=statistics.stdev(values) if len(values) > 1 else None, fmt="D", color=COLORS[at], markersize=7, capsize=4, label=name)
                panel.set_title(column, fontsize=10)
                panel.set_xlim(-0.7, len(ARMS) - 0.3)
                panel.set_xticks([])
                panel.grid(alpha=0.3)
                panel.spines[["top", "right"]].set_visible(False)
            whole.axes[0].set_ylabel("dev figure, per cent")
            named = {name: line for panel in whole.axes for line, name in zip(*panel.get_legend_handles_labels())}
            whole.legend(named.values(), named.keys(), frameon=False, fontsize=8, loc="lower center", ncols=5)
            whole.get_layout_engine().set(rect=(0, 0.08, 1, 0.92))  # the legend's line below

        return f"<div class=wide>{svg(draw, wide=True)}</div>"

    def rows(self):
        for name, arm in ARMS.items():
            losses = list(self.losses[arm].values())
            spread = f" ± {statistics.stdev(losses):.3f}" if len(losses) > 1 else ""
            yield [name, *(clue_table.cell(list(self.of(arm, column).values())) for column in (*self.tasks, "mean")), f"{statistics.mean(losses):.3f}{spread}" if losses else "–",
                   len(losses)]

    def differences(self):
        for name, one, other in DIFFERENCES:
            yield [name, *(signed(self.over(one, other, column)) for column in (*self.tasks, "mean"))]

    def published(self):
        by_name = {name: dict(zip(COLUMNS, values)) for name, values in PUBLISHED.items()}
        all_have = [column for column in COLUMNS if all(value[column] for value in by_name.values())]
        shared = [task for task in self.tasks if task in all_have]
        for name, value in by_name.items():
            yield [name, *(f"{value[task]:.2f}" if value.get(task) else "–" for task in self.tasks),
                   *(f"{statistics.mean(value[column] for column in some):.2f}" if some else "–" for some in (shared, all_have))]


def signed(values):
    if not values:
        return "–"
    return f"{100 * statistics.mean(values):+.2f}" + (f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else "")


def scale_note(found):
    s = found.settings
    size = json.loads(pathlib.Path(s["model"]).read_text(encoding="utf-8")) if os.path.exists(s["model"]) else {}
    shape = f"{size['num_hidden_layers']} layers of {size['hidden_size']}" if {"num_hidden_layers", "hidden_size"} <= size.keys() else os.path.basename(s["model"])
    rows = f"{s['rows']} rows" if s["rows"] else "all rows"
    more = f", with {', '.join(s['more'])}" if s["more"] else ""
    return f"""<p>The article: taking away biases, gains and a head's layers costs a little accuracy, and a second phase on labelled sets, its tasks' gradients each divided by its norm, wins back
        more than that (RoFormerV2, Su 2022). There: base, a million updates of 512 sequences of 512 tokens on 280 GB, then 750 000 on 77 sets as 92 tasks. Here: {html.escape(shape)}{html.escape(more)},
        {s['updates']} + {s['supervised']} updates of {s['sequences']} sequences of {s['length']} tokens at most, {len(s['mix'])} tasks ({html.escape(' '.join(s['mix']))}),
        {len(found.seeds)} seed{'s' * (len(found.seeds) > 1)}.</p>
        <ul><li>Every way has the same corpus and the same number of updates and sequences. Supervised batches hold fewer real tokens where rows are short, so the ways with tasks saw less text.
        <li>RoFormer is the same shape with biases, LayerNorm, GELU, a head of its own and plain residuals; RoFormerV2's residual weight rises over a quarter of the first phase.
        <li>Half of the second phase's batches are masking. The ways with tasks begin from the same {s['updates']} updates of a seed; each run's rate rises over a tenth of its updates and falls
        to zero: {s['rate']:g} for masking, {s['supervised_rate']:g} for tasks (the article: a tenth of the first phase's; in so few updates that would change little).
        <li>The mix may hold training rows of the tasks that are scored, as the article's did, and no row of a dev or test part; texts of CLUE's dev and test parts are taken out of every task's
        training rows. The text corpus is not filtered so, and all ways share it.
        <li>Each was fine-tuned alike: {rows}, {s['epochs']} epoch{'s' * (s['epochs'] > 1)}, AdaFactor at {s['tuning_rate']:g}, the best epoch by the figure that is shown.
        <li>What a small model learns in so few updates may differ from what a million bring: with little text masking has taught less, so the same labelled rows weigh more. Differences within
        the deviation over seeds say nothing.</ul>"""


def write_page(folder, output):
    found = Study(folder)
    columns = [f"{task}, {found.metrics[task]}" for task in found.tasks]
    rows, differences = list(found.rows()), list(found.differences())
    majorities = [f"{100 * found.majorities[task]:.2f}" if found.majorities[task] is not None else "–" for task in found.tasks]
    body = section("Dev figures after fine-tuning", (found.picture() if found.tasks else "") +
                   f"<div class=wide>{table(['pre-training', *columns, 'mean', 'held-out MLM loss, nats', 'seeds'], [*rows, ['most frequent label', *majorities, '–', '–', '–']])}</div>")
    body += section("Differences, seed by seed, in points", f"<div class=wide>{table(['of', *found.tasks, 'mean'], differences)}</div>")
    body += section("Published, of base size", f"<div class=wide>{table(['pre-training', *found.tasks, 'their mean', 'mean of ten'], list(found.published()))}</div>" +
                    "<p>The article's figures are of CLUE's test parts; of masking alone only dev figures were published (GAU-alpha), so a point between them says little. Ten: without cmrc2018, "
                    "whose dev figure is another measure.</p>")
    put_page(output, "phases of pre-training", f"<h1>What simplification costs and supervision wins back</h1><p class=sub>{html.escape(str(folder))}</p>{scale_note(found)}{body}", fail)
    names = (*found.tasks, "mean", "held-out MLM loss")
    for name, *cells in rows:
        print(f"{name}: " + ", ".join(f"{column} {cell}" for column, cell in zip(names, cells)))
    for name, *cells in differences:
        print(f"{name}: " + ", ".join(f"{column} {cell}" for column, cell in zip(names, cells)))
    print(output)


if __name__ == "__main__":
    start_page_of_folder(__doc__, "compare_phases", write_page)

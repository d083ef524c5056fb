#!/usr/bin/python3
"""One HTML page about one or more runs, with its pictures inside: report.py RUN_FOLDER... [-o report.html]

A folder is the output of pretrain, multitask, finetune or clue. Of each the page has what was run, its curves, and
  pretrain   loss (training and held out), accuracy, learning rate, alpha, gradient norm, speed
  multitask  the same, and of every task loss, dev figure, gradient norm and cosine to the sum of gradients over time
  finetune   loss and dev figure of every run with the epoch that was chosen, the runs' mean and deviation, which label is taken for which
  clue       the article's table, and the dev figures of every task's runs
and examples.txt (texts, below each a line of tab-separated answers with their probability) where the folder has one.
Prints the facts of each run and the name of the page."""

import argparse
import glob
import html
import json
import os
import statistics
import sys

import clue_table
import h5py
import numpy as np
from bench_file import columns
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter
from pictures import draw_curve, figure, smooth, spark, svg, table

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
h1{margin-bottom:0}.sub{color:#666;margin-top:0}svg{width:100%;height:auto}.grid{display:grid;grid-template-columns:1fr 1fr;gap:1em}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .9em;text-align:left;border-bottom:1px solid #ddd}td.n{text-align:right}
.wide{overflow-x:auto;font-size:13px}.wide td,.wide th{padding:.1em .4em;white-space:nowrap}svg.spark{width:88px;height:22px;vertical-align:middle}
pre{background:#f6f6f6;padding:1em;overflow:auto;font-size:13px}summary{cursor:pointer;margin:1em 0}"""

# The main figure of a kind of task is the first of these that its evaluations have (src/tasks/task_file.cpp).
MAIN_FIGURES = ("ndcg", "accuracy", "spearman", "exact_match", "micro_f1")


def fail(text):
    sys.exit(f"report.py: {text}")


class Results:
    """What a results.h5 holds: train, evaluations and tasks as columns, meta, and of a fine-tuning its dev predictions."""

    def __init__(self, path):
        if not os.path.exists(path):
            fail(f"{path} does not exist (expected the output folder of a run)")
        try:
            with h5py.File(path, "r") as file:
                if file.attrs.get("kind") != "roformer results":
                    fail(f"{path} is not a results file of roformer")
                self.train = columns(file["train"]) if "train" in file else {}
                self.evaluations = {name: columns(group) for name, group in file.get("eval", {}).items()}
                self.tasks = {name: columns(group) for name, group in file.get("tasks", {}).items()}
                self.predictions = next((columns(group) for group in file.get("predictions", {}).values()), {})
                self.meta = dict(file["meta"].attrs)
        except (OSError, KeyError) as error:
            fail(f"{path} cannot be read: {error}")
        if not len(self.train.get("step", [])):
            fail(f"{path} holds no update yet")
        self.input = json.loads(self.meta.get("input", "{}"))

    def facts(self):
        train, meta = self.train, self.meta
        return {"program": meta.get("program"), "processor": meta.get("processor"), "ranks": meta.get("ranks"), "compute type": meta.get("dtype"),
                "parameters": f"{int(meta.get('parameters', 0)):,}", "updates": int(train["step"][-1]), "tokens seen": f"{int(train['tokens'].sum()):,}",
                "time in updates": f"{train['seconds'].sum() / 60:.1f} min", "last training loss": f"{smooth(train['loss'], 10)[-1]:.4f} nats"}


def main_figure(evaluation):
    return next((name for name in MAIN_FIGURES if name in evaluation), None)


def start_page_of_folder(about, name, write_page):
    """The command line of a page made of one folder, NAME.html in it."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("-o", "--output", help=f"default: {name}.html in the folder")
    args = parser.parse_args()
    write_page(args.folder, args.output or os.path.join(args.folder, f"{name}.html"))


def put_page(path, title, body, complain=sys.exit):
    """Writes a whole page, or leaves what is there."""
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>roformer: {html.escape(title)}</title><style>{STYLE}</style>{body}</html>\n"
    try:
        with open(f"{path}.partial", "w", encoding="utf-8") as out:
            out.write(page)
        os.replace(f"{path}.partial", path)
    except OSError as error:
        complain(f"cannot write {path}: {error.strerror}")


def section(title, body):
    return f"<h2>{title}</h2>{body}" if body else ""


def loss_picture(train, label, held_out=None, unigram=None):
    def loss(axes):
        draw_curve(axes, train["step"], train["loss"], label, "nats", "tab:blue")
        axes.lines[-1].set_label("training")
        if held_out:
            axes.plot(held_out["step"], held_out["loss"], "o-", color="tab:red", markersize=4, label="held out")
        if unigram:
            axes.axhline(unigram, color="gray", linestyle="--", linewidth=1, label="unigram, same targets")
        axes.legend(frameon=False)

    return svg(loss, wide=True)


def small_pictures(train, held_out=None, names=("accuracy", "lr", "alpha", "grad_norm", "tokens_per_second", "flops_per_second")):
    out = ""
    for name, title, units, scale, color in (
        ("accuracy", "accuracy", "1", 1, "tab:green"), ("lr", "learning rate", "1", 1, "tab:purple"),
        ("alpha", "residual weight alpha", "1", 1, "tab:orange"), ("grad_norm", "gradient norm", "1", 1, "tab:brown"),
        ("tokens_per_second", "speed", "tokens/s", 1, "tab:cyan"), ("flops_per_second", "arithmetic", "GFLOP/s", 1e9, "tab:olive")):
        if name not in train or name not in names or (name == "alpha" and np.ptp(train[name]) == 0):
            continue

        def one(axes, name=name, title=title, color=color, units=units, scale=scale):
            draw_curve(axes, train["step"], train[name] / scale, title, units, color, noisy=name not in ("lr", "alpha"))
            if name == "accuracy" and held_out:
                axes.lines[-1].set_label("training")
                axes.plot(held_out["step"], held_out["accuracy"], "o-", color="tab:red", markersize=3, label="held out")
                axes.legend(frameon=False)
            if name in ("alpha", "tokens_per_second", "flops_per_second"):
                axes.set_ylim(bottom=0)
            if name == "grad_norm" and train[name].min() > 0:
                axes.set_yscale("log")
                if train[name].max() < 100 * train[name].min():  # too few powers of ten to read the axis by
                    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
                    axes.yaxis.set_minor_formatter(NullFormatter())

        out += f"<div><h3>{title.capitalize()}</h3>{svg(one)}</div>"
    return f"<div class=grid>{out}</div>"


def pretrain_page(folder):
    results = Results(os.path.join(folder, "results.h5"))
    held_out, facts = results.evaluations.get("mlm"), results.facts()
    if held_out:
        facts["held-out loss"] = f"{held_out['loss'][-1]:.4f} nats (perplexity {held_out['perplexity'][-1]:.1f}, accuracy {held_out['accuracy'][-1]:.1%})"
    unigram = results.meta.get("unigram_cross_entropy")
    if unigram is not None:
        facts["unigram cross-entropy of the same targets"] = f"{unigram:.4f} nats"
    loss = loss_picture(results.train, "masked-LM loss", held_out, unigram)
    return "Pre-training", facts, section("Loss", loss) + small_pictures(results.train, held_out), results.input, loss


def tasks_table(results):
    """A row a task, with curves of its micro-steps; cosines on one scale, from -1 to 1, and dev figures from 0 to 1."""
    last, rows = results.train["step"][-1], []
    for name, task in results.tasks.items():
        if not len(task["step"]):
            rows.append([name, 0, "", "", "", "", "", "", "", ""])
            continue
        step, dev = task["step"], results.evaluations.get(name, {})
        main, width = main_figure(dev), max(1, len(step) // 20)
        loss, norm = smooth(task["loss"], width), smooth(task["grad_norm"], width)
        measured = np.isfinite(task["cosine"])
        cosine = smooth(task["cosine"][measured], max(1, measured.sum() // 20))
        rows.append([name, len(step), spark(step, loss, last), f"{figure(loss[0])} → {figure(loss[-1])}",
                     spark(dev["step"], dev[main], last, 0, 1) if main else "", f"{main} {figure(dev[main][-1])}" if main else "",
                     spark(step, norm, last), float(norm[-1]), spark(step[measured], cosine, last, -1, 1),
                     float(cosine.mean()) if len(cosine) else float("nan")])
    header = ["task", "micro-steps", "loss", "", "dev figure", "", "gradient norm", "last", "cosine to the sum", "mean"]
    return f"<div class=wide>{table(header, rows)}</div>"


def multitask_page(folder):
    results = Results(os.path.join(folder, "results.h5"))
    facts = {**results.facts(), "tasks": len(results.tasks)}
    last = [dev[main_figure(dev)][-1] for name, dev in results.evaluations.items() if name != "mlm" and main_figure(dev)]
    last = [value for value in last if np.isfinite(value)]
    if last:
        facts["mean of the tasks' main dev figures"] = f"{statistics.mean(last):.4f} (of {len(last)})"
    loss = loss_picture(results.train, "loss, mean of micro-steps")
    return "Multitask", facts, section("Loss", loss) + small_pictures(results.train) + section("Tasks", tasks_table(results)), results.input, loss


def read_runs(folder):
    """The runs of a fine-tuning by name, those under way too."""
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), "runs", "*", "results.h5")))
    return {os.path.basename(os.path.dirname(path)): Results(path) for path in paths}


def dev_picture(runs, main, majority=None):
    """The dev figure by epoch, a line a run, a ring around the epoch that was chosen: the first of the best."""
    def draw(axes):
        for name, run in runs.items():
            dev = next(iter(run.evaluations.values()), {})
            if main not in dev:
                continue
            best = int(np.argmax(dev[main]))
            line, = axes.plot(dev["epoch"], dev[main], "o-", markersize=4, label=name)
            axes.plot(dev["epoch"][best], dev[main][best], "o", markersize=11, markerfacecolor="none", color=line.get_color())
        if majority is not None:
            axes.axhline(majority, color="gray", linestyle="--", linewidth=1, label="most frequent label")
        axes.set_xlabel("epochs")
        axes.set_ylabel(f"dev {main.replace('_', ' ')}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(axes.get_legend_handles_labels()[0]) <= 9:
            axes.legend(frameon=False, fontsize=8)

    return svg(draw)


def run_losses(runs):
    def draw(axes):
        for name, run in runs.items():
            step, loss = run.train["step"], run.train["loss"]
            line, = axes.plot(step, smooth(loss, max(2, len(step) // 60)), linewidth=1.5, label=name)
            dev = next(iter(run.evaluations.values()), None)
            if dev:
                axes.plot(dev["step"], dev["loss"], "o--", color=line.get_color(), markersize=4, linewidth=1)
        axes.set_xlabel("updates")
        axes.set_ylabel("loss [nats]; points: dev")
        axes.legend(frameon=False)

    return svg(draw, wide=True)


def labels_of(results):
    """Right and answered label of every dev row whose label is known, and the table of labels; of other kinds of task none."""
    names = results.input.get("task_labels") or []
    if results.input.get("task_file", {}).get("kind") != "classify" or "label" not in results.predictions:
        return None
    number = {name: i for i, name in enumerate(names)}
    answered = np.array([number[json.loads(line)["label"]] for line in results.predictions["answer"]], dtype=int)
    right = results.predictions["label"].astype(int)
    known = right >= 0
    return (right[known], answered[known], names) if known.any() else None


def label_tables(right, answered, names):
    """Confusion matrix, rows the right labels (up to 24 of them), and precision and recall of each."""
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (right, answered), 1)
    out = ""
    if len(names) <= 24:
        head = "<tr><th>right \\ answered</th>" + "".join(f"<th>{html.escape(name)}</th>" for name in names) + "</tr>"
        body = ""
        for name, row in zip(names, counts):
            shares = row / max(row.sum(), 1)
            body += f"<tr><th>{html.escape(name)}</th>" + "".join(
                f'<td class=n style="background:rgba(31,119,180,{0.75 * share:.2f})">{count or ""}</td>' for count, share in zip(row, shares)) + "</tr>"
        out += section("Which label is taken for which", f"<div class=wide><table>{head}{body}</table></div>")
    rows = []
    for i in np.argsort(-counts.sum(axis=1), kind="stable"):
        others = np.where(np.arange(len(names)) == i, 0, counts[i])
        rows.append([names[i], int(counts[i].sum()), counts[i, i] / counts[:, i].sum() if counts[:, i].any() else float("nan"),
                     counts[i, i] / counts[i].sum() if counts[i].any() else float("nan"), f"{names[others.argmax()]} ({others.max()})" if others.any() else ""])
    return out + section("Labels", table(["label", "dev rows", "precision", "recall", "most often taken for"], rows))


def finetune_page(folder):
    runs = read_runs(folder)
    if not runs:
        fail(f"{folder} holds no run yet")
    path = os.path.join(folder, "results.h5")
    results = Results(path) if os.path.exists(path) else next(iter(runs.values()))
    facts = results.facts()
    dev = next(iter(results.evaluations.values()), {})
    main, body, outcome = main_figure(dev), "", None
    if os.path.exists(os.path.join(folder, "metrics.json")):
        with open(os.path.join(folder, "metrics.json"), encoding="utf-8") as file:
            outcome = json.load(file)
        best = outcome["best"]
        main = next(iter(best["metrics"]))
        facts = {"task": outcome["task"], "rows": ", ".join(f"{part} {outcome[part + '_examples']}" for part in ("train", "dev", "test")), **facts}
        facts[f"dev {main.replace('_', ' ')}"] = f"{best['metrics'][main]:.4f} (learning rate {best['learning_rate']:g}, seed {best['seed']}, epoch {best['epoch']})"
        values = [run["metrics"][main] for run in outcome["runs"]]
        if len(values) > 1:
            facts[f"mean of {len(values)} runs"] = f"{statistics.mean(values):.4f}, deviation {statistics.stdev(values):.4f}"
        if main in outcome.get("test", {}):
            facts[f"test {main.replace('_', ' ')}"] = f"{outcome['test'][main]:.4f}"
        names = list(best["metrics"])
        rows = [[f"{run['learning_rate']:g}", str(run["seed"]), str(run["epoch"]), *(float(run["metrics"].get(name, "nan")) for name in names)]
                for run in outcome["runs"]]
        body += section("Runs", table(["learning rate", "seed", "chosen epoch", *names], rows))
    else:
        facts["state"] = f"under way: {len(runs)} runs begun"
    labels, majority = labels_of(results), None
    if labels:
        majority = np.bincount(labels[0]).max() / len(labels[0])
        facts["most frequent label"] = f"{labels[2][np.bincount(labels[0]).argmax()]}, {majority:.4f} of the dev rows"
        body += label_tables(*labels)
    loss = run_losses(runs)
    pictures = f"<div><h3>Dev figure</h3>{dev_picture(runs, main, majority if main == 'accuracy' else None)}</div>" if main else ""
    pictures = f"<div class=grid>{pictures}</div>" + small_pictures(results.train, names=("grad_norm", "tokens_per_second"))
    return "Fine-tuning", facts, section("Loss", loss) + pictures + body, results.input, loss


def clue_page(folder):
    run = clue_table.read_run(folder)
    name = os.path.basename(os.path.normpath(folder))
    data = os.environ.get("RF_DATA")
    published, source = clue_table.published_rows(os.path.join(data, "reference/published_clue_scores.json")) if data else ([], "")
    body = f"<div class=wide>{clue_table.html_table(clue_table.HEADER, [*published, clue_table.row_of(name, run)])}</div><p>{html.escape(source)}</p>"
    body += f"<div class=wide>{clue_table.html_table(clue_table.DETAIL_HEADER, list(clue_table.facts(name, run)))}</div>"
    pictures = ""
    for _, task, _, _ in clue_table.COLUMNS:
        runs = read_runs(os.path.join(folder, task))
        if runs and run.get(task, {}).get("dev"):
            pictures += f"<div><h3>{task}</h3>{dev_picture(runs, run[task]['metric'])}</div>"
    with h5py.File(os.path.join(folder, "clue.h5"), "r") as file:
        attributes = dict(file.attrs)
    facts = {"program": attributes.get("program"), "tasks": sum(bool(task["dev"]) for task in run.values()), "missing": sum(bool(task["missing"]) for task in run.values())}
    return "CLUE", facts, section("Dev figures, in per cent", body) + section("By epoch", f"<div class=grid>{pictures}</div>" if pictures else ""), \
        json.loads(attributes.get("input", "{}")), None


def page_of(folder):
    """Title, facts, HTML, input and loss picture of a run; what a folder is shows in what it holds."""
    if os.path.exists(os.path.join(folder, "clue.h5")):
        return clue_page(folder)
    if os.path.isdir(os.path.join(folder, "runs")):
        return finetune_page(folder)
    path = os.path.join(folder, "results.h5")
    return multitask_page(folder) if os.path.exists(path) and h5py.is_hdf5(path) and Results(path).tasks else pretrain_page(folder)


def examples(path):
    if not os.path.exists(path):
        return ""
    out = ""
    with open(path, encoding="utf-8") as file:
        for line in file.read().splitlines():
            if line.startswith("\t"):
                cells = [cell.rpartition(" ") for cell in line.strip("\t").split("\t")]
                out += "<table><tr>" + "".join(f"<td>{html.escape(text)} <small>{float(p):.1%}</small></td>" for text, _, p in cells) + "</tr></table>"
            else:
                out += f"<p>{html.escape(line)}</p>"
    return section("Examples", out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("-o", "--output", help="default: report.html in the first RUN")
    parser.add_argument("--loss-svg", help="also write the loss picture of the first run that has one to this file")
    args = parser.parse_args()
    body, picture = "", None
    for folder in args.runs:
        title, facts, content, given, loss = page_of(folder)
        picture = picture or loss
        print(f"{title}, {folder}:")
        for name, value in facts.items():
            print(f"  {name}: {value}")
        body += (f"<h1>{title} report</h1><p class=sub>{html.escape(folder)}</p>{table(['', ''], [[name, str(value)] for name, value in facts.items()])}{content}"
                 f"{examples(os.path.join(folder, 'examples.txt'))}"
                 f"<details><summary>Input as resolved</summary><pre>{html.escape(json.dumps(given, indent=2, ensure_ascii=False))}</pre></details>")
    if args.loss_svg and picture:
        with open(args.loss_svg, "w", encoding="utf-8") as out:
            out.write('<?xml version="1.0" encoding="utf-8"?>\n' + picture)
    output = args.output or os.path.join(args.runs[0], "report.html")
    put_page(output, ", ".join(args.runs), body, fail)
    print(output)


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""One HTML page about a run, with its pictures inside: report.py RUN_FOLDER [-o report.html]

Reads results.h5 and run.json of an output folder of pretrain, multitask or finetune, and examples.txt (the output of fill-mask) where
there is one. Draws loss (training and held out), accuracy, learning rate, alpha, gradient norm and tokens per second; of a mix a row a
task with its losses, norms and cosines; of a fine-tuning its dev figures, its runs and which class was taken for which."""

import argparse
import html
import io
import json
import os
import re
import sys

import h5py
import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter  # noqa: E402

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
h1{margin-bottom:0}.sub{color:#666;margin-top:0}svg{width:100%;height:auto}.grid{display:grid;grid-template-columns:1fr 1fr;gap:1em}
table{border-collapse:collapse}td,th{padding:.2em .9em;text-align:left;border-bottom:1px solid #ddd}td.n{text-align:right}
pre{background:#f6f6f6;padding:1em;overflow:auto;font-size:13px}summary{cursor:pointer;margin:1em 0}"""


def fail(text):
    sys.exit(f"report.py: {text}")


def smooth(values, width):
    """Mean over a centred window that shrinks at the ends."""
    total = np.cumsum(np.insert(values.astype(float), 0, 0))
    low = np.maximum(np.arange(len(values)) - width, 0)
    high = np.minimum(np.arange(len(values)) + width + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def svg(draw, wide=False):
    figure, axes = plt.subplots(figsize=(11, 4.2) if wide else (5.6, 3.4), layout="constrained")
    draw(axes)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg"):]


def draw_curve(axes, step, values, label, units, color, noisy=True):
    """Noisy measurements become points with their running mean; a schedule is drawn as it is."""
    if noisy and len(step) > 80:
        axes.plot(step, values, ".", color=color, alpha=0.18, markersize=2, rasterized=True)
        axes.plot(step, smooth(values, max(2, len(step) // 60)), color=color, linewidth=1.8)
    else:
        axes.plot(step, values, color=color, linewidth=1.5)
    axes.set_xlabel("updates")
    axes.set_ylabel(f"{label} [{units}]" if units != "1" else label)


def pictures(train, evaluation, meta):
    step = train["step"]

    def loss(axes):
        draw_curve(axes, step, train["loss"], "loss", "nats", "tab:blue")
        axes.lines[-1].set_label("training")
        if len(evaluation.get("step", [])):
            axes.plot(evaluation["step"], evaluation["loss"], "o-", color="tab:red", markersize=4, label="held out")
        if "unigram_cross_entropy" in meta:
            axes.axhline(meta["unigram_cross_entropy"], color="gray", linestyle="--", linewidth=1, label="unigram, same targets")
        axes.legend(frameon=False)

    yield "Loss", svg(loss, wide=True), True
    for name, title, units, scale, color in (
        ("accuracy", "accuracy", "1", 1, "tab:green"), ("lr", "learning rate", "1", 1, "tab:purple"),
        ("alpha", "residual weight alpha", "1", 1, "tab:orange"), ("grad_norm", "gradient norm", "1", 1, "tab:brown"),
        ("tokens_per_second", "speed", "tokens/s", 1, "tab:cyan"), ("flops_per_second", "arithmetic", "GFLOP/s", 1e9, "tab:olive")):
        if name not in train:
            continue

        def one(axes, name=name, title=title, color=color, units=units, scale=scale):
            draw_curve(axes, step, train[name] / scale, title, units, color, noisy=name not in ("lr", "alpha"))
            if name == "accuracy" and "accuracy" in evaluation:
                axes.lines[-1].set_label("training")
                axes.plot(evaluation["step"], evaluation["accuracy"], "o-", color="tab:red", markersize=3, label="held out")
                axes.legend(frameon=False)
            if name in ("alpha", "tokens_per_second", "flops_per_second"):
                axes.set_ylim(bottom=0)
            if name == "grad_norm":
                axes.set_yscale("log")
                if train[name].max() < 100 * train[name].min():  # too few powers of ten to read the axis by
                    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
                    axes.yaxis.set_minor_formatter(NullFormatter())

        yield title.capitalize(), svg(one), False


def examples(path):
    """Tables from fill-mask's output: a line of text, then a line of tab-separated candidates for each mask."""
    if not os.path.exists(path):
        return ""
    out = "<h2>Filled masks</h2>"
    for line in open(path, encoding="utf-8"):
        line = line.rstrip("\n")
        if line.startswith("\t"):
            cells = [re.fullmatch(r"(.*) ([0-9.]+)", c) for c in line.strip("\t").split("\t")]
            out += "<tr>" + "".join(f"<td>{html.escape(c[1])} <small>{float(c[2]):.1%}</small></td>" for c in cells if c) + "</tr>"
        else:
            out += ("</table>" if "<table" in out and not out.endswith("</table>") else "") + f"<p>{html.escape(line)}</p><table>"
    return out + "</table>"


def columns(group):
    return {name: group[name][:] for name in group if isinstance(group[name], h5py.Dataset)}


def html_table(head, rows):
    """Numbers stand to the right; what begins with < is markup already."""
    def cell(value):
        text = str(value)
        return f"<td{' class=n' if re.match(r'[-–0-9]', text) else ''}>{text if text.startswith('<') else html.escape(text)}</td>"

    return ("<table><tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in head) + "</tr>"
            + "".join("<tr>" + "".join(map(cell, row)) + "</tr>" for row in rows) + "</table>")


def spark(values):
    """A small line of a running mean, over the whole range of its values."""
    y = smooth(values, max(1, len(values) // 12))
    if len(y) < 2:
        return ""
    low, span = y.min(), max(y.max() - y.min(), 1e-12)
    points = " ".join(f"{110 * i / (len(y) - 1):.1f},{20 - 18 * (v - low) / span:.1f}" for i, v in enumerate(y))
    return f'<svg viewBox="0 0 110 22" style="width:110px"><polyline points="{points}" fill="none" stroke="#1f77b4" stroke-width="1.3"/></svg>'


def main_figure(evaluated):
    """Name and values of a task's main figure: the first of these that it has."""
    for name in ("assigned_accuracy", "accuracy", "micro_f1", "exact_match", "f1", "spearman", "loss"):
        if name in evaluated:
            return name, evaluated[name]
    return "–", np.array([])


def mixed_tasks(file):
    """A row a task of a mix."""
    rows = []
    for name in file["tasks"]:
        learnt = columns(file["tasks"][name])
        figure, values = main_figure(columns(file["eval"][name])) if name in file.get("eval", {}) else ("–", [])
        cosine = learnt["cosine"][np.isfinite(learnt["cosine"])]
        rows.append((name, len(learnt["step"]), f"{learnt['loss'][-10:].mean():.3f}", spark(learnt["loss"]), f"{learnt['grad_norm'].mean():.3g}",
                     f"{cosine.mean():.2f}" if len(cosine) else "–", figure, f"{values[0]:.4f}" if len(values) else "–", f"{values[-1]:.4f}" if len(values) else "–"))
    return "<h2>Tasks</h2>" + html_table(["task", "micro-steps", "loss, last ten", "loss", "gradient norm", "cosine to the sum", "dev figure", "first", "last"], rows)


def fine_tuned(file, meta):
    """Dev figures by epoch, the runs, and right against given classes."""
    task = next(iter(file["predictions"]))
    evaluated, runs, said = columns(file["eval"][task]), columns(file["runs"]), columns(file["predictions"][task])
    figure, values = main_figure(evaluated)

    def dev(axes):
        axes.plot(evaluated["epoch"], values, "o-", color="tab:red", markersize=4)
        axes.set_xlabel("epochs of the best run")
        axes.set_ylabel(f"dev {figure}")

    best = runs[figure]
    head = f"<h2>Dev figures</h2><p>{html.escape(figure)} of {len(said['id'])} held-out examples: {best.mean():.4f}"
    body = head + (f" ± {best.std(ddof=1):.4f} over {len(best)} runs" if len(best) > 1 else "") + f"</p>{svg(dev, wide=True)}"
    body += html_table(["learning rate", "seed", "best epoch", figure], [(f"{lr:g}", seed, epoch, f"{value:.4f}") for lr, seed, epoch, value in
                                                                         zip(runs["learning_rate"], runs["seed"], runs["epoch"], best)])
    labels = json.loads(meta["input"]).get("task_labels") or []
    if "label" in said and 1 < len(labels) <= 20 and said["logits"].shape[1] == len(labels):
        known = said["label"] >= 0
        counts = np.zeros((len(labels), len(labels)), int)
        np.add.at(counts, (said["label"][known], said["logits"][known].argmax(1)), 1)
        body += "<h2>Right class (rows) and given class</h2>" + html_table(["", *labels, "recall"], [
            (f"<b>{html.escape(label)}</b>", *row, f"{row[i] / max(row.sum(), 1):.1%}") for i, (label, row) in enumerate(zip(labels, counts))])
        body += f"<p>Always the most frequent class: {counts.sum(1).max() / max(counts.sum(), 1):.1%}</p>"
    return body


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("-o", "--output", help="default: RUN/report.html")
    parser.add_argument("--loss-svg", help="also write the loss picture to this file")
    args = parser.parse_args()
    path = os.path.join(args.run, "results.h5")
    if not os.path.exists(path):
        fail(f"{path} does not exist (expected the output folder of a run)")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("kind") != "roformer results":
                fail(f"{path} is not a results file of roformer")
            train = columns(file["train"])
            evaluation = columns(file["eval/mlm"]) if "eval/mlm" in file and "tasks" not in file else {}
            meta = dict(file["meta"].attrs)
            title, tasks = ("Multi-task report", mixed_tasks(file)) if "tasks" in file else ("Fine-tuning report", fine_tuned(file, meta)) if "predictions" in file else (
                "Training report" if "task_file" in meta.get("input", "") else "Pre-training report", "")
    except OSError as error:
        fail(f"{path} cannot be read: {error}")
    if not len(train.get("step", [])):
        fail(f"{path} holds no update yet")
    run = json.load(open(os.path.join(args.run, "run.json"), encoding="utf-8")) if os.path.exists(os.path.join(args.run, "run.json")) else {}
    facts = {"program": meta.get("program"), "processor": meta.get("processor"), "ranks": meta.get("ranks"), "compute type": meta.get("dtype"),
             "parameters": f"{int(meta.get('parameters', 0)):,}", "updates": int(train["step"][-1]), "tokens seen": f"{int(train['tokens'].sum()):,}",
             "time in updates": f"{train['seconds'].sum() / 60:.1f} min", "last training loss": f"{smooth(train['loss'], 10)[-1]:.4f} nats"}
    if len(evaluation.get("step", [])):
        facts["held-out loss"] = f"{evaluation['loss'][-1]:.4f} nats (perplexity {evaluation['perplexity'][-1]:.1f}, accuracy {evaluation['accuracy'][-1]:.1%})"
    if "unigram_cross_entropy" in meta:
        facts["unigram cross-entropy of the same targets"] = f"{meta['unigram_cross_entropy']:.4f} nats"
    body, small = "", ""
    for name, picture, wide in pictures(train, evaluation, meta):
        if name == "Loss" and args.loss_svg:
            with open(args.loss_svg, "w", encoding="utf-8") as out:
                out.write('<?xml version="1.0" encoding="utf-8"?>\n' + picture)
        if wide:
            body += f"<h2>{name}</h2>{picture}"
        else:
            small += f"<div><h3>{name}</h3>{picture}</div>"
    table = "".join(f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>" for k, v in facts.items())
    page = (f"<!doctype html><html lang=en><meta charset=utf-8><title>roformer: {html.escape(args.run)}</title><style>{STYLE}</style>"
            f"<h1>{title}</h1><p class=sub>{html.escape(args.run)}</p><table>{table}</table>{body}<div class=grid>{small}</div>"
            f"{tasks}{examples(os.path.join(args.run, 'examples.txt'))}"
            f"<details><summary>Input as resolved</summary><pre>{html.escape(json.dumps(run.get('input', {}), indent=2, ensure_ascii=False))}</pre></details></html>\n")
    output = args.output or os.path.join(args.run, "report.html")
    with open(output + ".partial", "w", encoding="utf-8") as out:
        out.write(page)
    os.replace(output + ".partial", output)
    print(output)


if __name__ == "__main__":
    main()

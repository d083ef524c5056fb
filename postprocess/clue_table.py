#!/usr/bin/python3
"""The CLUE table of one or more runs beside the published one: clue_table.py [NAME=]PATH... [--markdown FILE] [--html FILE] [--published FILE]

A PATH is a clue.h5 or the folder it lies in. Columns stand in the article's order; a cell is the mean over seeds of the task's dev figure,
in per cent, with its deviation (n - 1) where there are several. Below stands what each column was trained and scored on, and what was
missing. Published rows come from --published, or reference/published_clue_scores.json in the folder that RF_DATA names."""

import argparse
import html
import json
import os
import statistics
import sys

import h5py

# Column, task, and the rows of the complete train and dev parts (CLUE's README; rows labelled "-" not counted; of C3 and CMRC questions).
COLUMNS = (("iflytek", "iflytek", 12133, 2599), ("tnews", "tnews", 53360, 10000), ("afqmc", "afqmc", 34334, 4316),
           ("cmnli", "cmnli", 391783, 12241), ("ocnli", "ocnli", 50437, 2950), ("wsc", "cluewsc2020", 1244, 304), ("csl", "csl", 20000, 3000),
           ("cmrc2018", "cmrc2018", 10142, 3219), ("c3", "c3", 11869, 3816), ("chid", "chid", None, None), ("cluener", "cluener", 10748, 1343))
HEADER = ["model", "part", *(column for column, _, _, _ in COLUMNS), "mean"]
DETAIL_HEADER = ["model", "column", "metric", "train rows", "dev rows", "seeds", "missing"]


def fail(text):
    print(f"clue_table.py: {text}", file=sys.stderr)
    sys.exit(2)


def read_run(path):
    """{task: {metric, missing, dev [runs], train_examples, dev_examples}} of a file, or of the clue.h5 in a folder."""
    file_name = os.path.join(path, "clue.h5") if os.path.isdir(path) else path
    try:
        with h5py.File(file_name, "r") as file:
            if "clue" not in file:
                fail(f"{file_name} has no group /clue (expected what `roformer clue` wrote)")
            known, out = {task for _, task, _, _ in COLUMNS}, {}
            for task, group in file["clue"].items():
                if task not in known:
                    fail(f"{file_name}: /clue/{task} is none of the tasks {', '.join(sorted(known))}")
                for name in ("metric", "missing"):
                    if name not in group.attrs:
                        fail(f"{file_name}: /clue/{task} has no attribute {name}")
                missing = text_of(group.attrs["missing"])
                if not missing and "dev" not in group:
                    fail(f"{file_name}: /clue/{task} has no dataset dev and does not say what is missing")
                out[task] = {"metric": text_of(group.attrs["metric"]), "missing": missing, "dev": [] if missing else [float(x) for x in group["dev"][:]],
                             "train": group.attrs.get("train_examples"), "dev_rows": group.attrs.get("dev_examples")}
    except OSError as error:
        fail(f"{file_name} cannot be read ({error})")
    return out


def text_of(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def cell(values):
    if not values:
        return "–"
    mean = f"{100 * statistics.mean(values):.2f}"
    return f"{mean} ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else mean


def row_of(name, run):
    """Cells of a run; the mean is of the seeds' means, over the columns that there are."""
    tasks = [run.get(task, {"dev": []})["dev"] for _, task, _, _ in COLUMNS]
    there = [statistics.mean(values) for values in tasks if values]
    mean = f"{100 * statistics.mean(there):.2f}" if there else "–"
    return [name, "dev", *map(cell, tasks), mean + (f" (of {len(there)})" if 0 < len(there) < len(COLUMNS) else "")]


def published_rows(path):
    """Rows of the published figures, or none and why."""
    if not path:
        return [], "Published figures are left out: neither --published nor RF_DATA says where they are."
    if not os.path.exists(path):
        return [], f"Published figures are left out: {os.path.basename(path)} is not there."
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    rows = []
    for key, part in (("clue_1_1_test", "test"), ("clue_dev", "dev")):
        block = content.get(key, {})
        for name, values in block.items():
            if name in ("columns", "source"):
                continue
            by_column = dict(zip(block["columns"], values))
            there = [by_column[c] for c, _, _, _ in COLUMNS if c in by_column]
            mean = f"{statistics.mean(there):.2f}" + (f" (of {len(there)})" if len(there) < len(COLUMNS) else "")
            rows.append([name, part, *(f"{by_column[c]:.2f}" if c in by_column else "–" for c, _, _, _ in COLUMNS), mean])
    return rows, "Published figures: " + ", ".join(content[key]["source"] for key in ("clue_1_1_test", "clue_dev") if key in content) + "."


def share(rows, whole):
    if rows is None:
        return "?"
    return f"{int(rows)}" + (f" of {whole}" if whole and int(rows) < whole else "")


def facts(name, run):
    """What each column of a run rests on."""
    for column, task, train, dev in COLUMNS:
        part = run.get(task)
        if part is None:
            yield [name, column, "–", "–", "–", "–", "not in the file"]
        else:
            yield [name, column, part["metric"], share(part["train"], train), share(part["dev_rows"], dev), str(len(part["dev"])), part["missing"] or ""]


def markdown(header, rows):
    lines = [header, [":--" if i < 2 else "--:" for i in range(len(header))], *rows]
    return "".join("| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |\n" for line in lines)


def html_table(header, rows):
    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}{'' if i < 2 else ' class=n'}>{html.escape(str(c))}</{tag}>" for i, c in enumerate(cells)) + "</tr>\n"
    return "<table>\n" + line(header, "th") + "".join(line(r, "td") for r in rows) + "</table>\n"


def write(path, text):
    with open(path + ".partial", "w", encoding="utf-8") as out:
        out.write(text)
    os.replace(path + ".partial", path)


def main():
    data = os.environ.get("RF_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="[NAME=]PATH")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables there too")
    parser.add_argument("--html", metavar="FILE", help="write them as a piece of HTML")
    parser.add_argument("--published", default=data and os.path.join(data, "reference/published_clue_scores.json"), metavar="FILE")
    args = parser.parse_args()
    runs = {}
    for word in args.runs:
        name, equals, path = word.rpartition("=")
        name = name if equals else os.path.basename(os.path.normpath(path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))))
        if name in runs:
            fail(f"two runs are called {name}: name them NAME=PATH")
        runs[name] = read_run(path)
    rows, source = published_rows(args.published)
    rows += [row_of(name, run) for name, run in runs.items()]
    details = [line for name, run in runs.items() for line in facts(name, run)]
    text = markdown(HEADER, rows) + "\n" + markdown(DETAIL_HEADER, details) + "\n" + source + "\n"
    print(text, end="")
    if args.markdown:
        write(args.markdown, text)
    if args.html:
        write(args.html, html_table(HEADER, rows) + html_table(DETAIL_HEADER, details) + f"<p>{html.escape(source)}</p>\n")


if __name__ == "__main__":
    main()

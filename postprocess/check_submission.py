#!/usr/bin/python3
"""Checks answer files before they are handed in: check_submission.py PATH... [--data FOLDER] [--tasks FOLDER] [--form FORM]

A PATH is a file, or a folder whose files are all checked. The task files say what each must be (`submission`); --form checks the form alone,
whatever the file is called. With --data (the folder of the task files' paths) ids must be those of the test part, all of them, in their
order, and what is answered must be possible there. What is wrong is told by file and row, exit code 2. Packed files (.xz) are read too."""

import argparse
import collections
import json
import lzma
import os
import re
import sys

FORMS = ("labels", "answers", "choices", "entities")
TASKS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "inputs", "tasks")


class Refused(Exception):
    """What is wrong with a file, with the row where it is."""

    def __init__(self, what, row=None):
        super().__init__(what)
        self.row = row


def read(path):
    try:
        with (lzma.open if path.endswith(".xz") else open)(path, "rt", encoding="utf-8", newline="\n") as file:
            return file.read()
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise Refused(f"cannot be read ({error})") from None


def parse(text, row=None):
    """JSON whose keys stand once."""

    def unique(pairs):
        for key, times in collections.Counter(key for key, _ in pairs).items():
            if times > 1:
                raise Refused(f'the key "{key}" stands {times} times', row)
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise Refused(f"not JSON ({error.msg})", row or error.lineno) from None


# The form of a file: each yields (row, id, answer).

def is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def lines(text):
    if not text:
        raise Refused("is empty")
    for row, line in enumerate(text[:-1].split("\n") if text.endswith("\n") else text.split("\n"), 1):
        item = parse(line, row)
        if not isinstance(item, dict) or list(item) != ["id", "label"]:
            raise Refused('expected {"id": …, "label": …}', row)
        if not is_whole(item["id"]) and not isinstance(item["id"], str):
            raise Refused("the id is neither a whole number nor a text", row)
        yield row, item["id"], item["label"]


def one_object(text):
    item = parse(text)
    if not isinstance(item, dict) or not item:
        raise Refused("expected one object of ids and answers")
    for row, (key, value) in enumerate(item.items(), 1):
        yield row, key, value


def check_entities(table, row):
    places = isinstance(table, dict) and all(isinstance(texts, dict) and texts for texts in table.values())
    for entity, spans in ((e, s) for texts in table.values() for e, s in texts.items()) if places else ():
        if not (isinstance(spans, list) and spans and all(isinstance(s, list) and len(s) == 2 and all(map(is_whole, s)) for s in spans)):
            raise Refused(f'the places of "{entity}" are no list of [first, last]', row)
        for first, last in spans:
            if not 0 <= first <= last or last - first + 1 != len(entity):
                raise Refused(f'"{entity}" has {len(entity)} characters, its place [{first}, {last}] does not (the last counts)', row)
    if not places:
        raise Refused("the label is no table of types, texts and places", row)


def rows_of(text, form):
    """The rows of a file, its form checked."""
    out, seen = [], {}
    for row, key, value in lines(text) if form in ("labels", "entities") else one_object(text):
        if seen.setdefault(key, row) != row:
            raise Refused(f"the id {key} stands in row {seen[key]} already", row)
        if form == "entities":
            check_entities(value, row)
        elif form == "choices" and (not is_whole(value) or value < 0):
            raise Refused(f"the answer to {key} is no number of a choice", row)
        elif form in ("labels", "answers") and not isinstance(value, str):
            raise Refused(f"the {form[:-1]} of {key} is no text", row)
        out.append((row, key, value))
    return out


# What the test part asks: enough of the task files' language for the sets of CLUE.

def walk(value, path, holders=()):
    """Yields (item, what holds it) for the items of a list; a list on the way stands for its items."""
    if not path:
        for item in value if isinstance(value, list) else [value]:
            yield item, holders
    elif isinstance(value, list) and not path[0].isdigit():
        for item in value:
            yield from walk(item, path, holders)
    else:
        yield from walk(value[int(path[0])] if isinstance(value, list) else value[path[0]], path[1:], (value, *holders))


def questions(task, source, data):
    """(id, number of choices or None, text or None) of every row of a source of the test part."""
    reader, sources = dict(task.get("reader", {})), task.get("test")
    if sources is None:
        raise Refused(f"the task {task['name']} has no test part to compare with")
    given = sources[source] if isinstance(sources, list) else sources
    if isinstance(given, dict):
        reader.update(given.get("reader", {}))
        given = given["files"]
    path = os.path.join(data, given)
    try:
        text = read(path)
    except Refused as error:
        raise Refused(f"{path} {error}") from None
    records = json.loads(text) if reader.get("format") == "json" else [json.loads(line) for line in text.split("\n") if line]
    each = [part for part in reader.get("each", "").split(".") if part]
    marks = reader.get("blanks", {}).get("pattern")
    number = -1
    for record in records if isinstance(records, list) else [records]:
        for item, holders in walk(record, each) if each else [(record, ())]:
            number += 1
            if marks:
                for mark in re.finditer(marks, item):
                    yield mark[0], len(holders[0][task["choices"]]), None
                continue
            choices = item.get(task["choices"]) if isinstance(task.get("choices"), str) else None
            if source > 0 and task.get("id", "id") not in item:
                raise Refused(f"{path} has rows without an id: they cannot be compared")
            yield item.get(task.get("id", "id"), number), choices and max(len(choices), task.get("pad_choices", 0)), item.get("text")


def labels_of(task, data):
    """The table of labels, or None where it stands in a file and there is no data."""
    given = task.get("labels")
    if not isinstance(given, dict):
        return given
    if data is None:
        return None
    return [str(json.loads(line)[given.get("value", "label")]) for line in read(os.path.join(data, given["files"])).split("\n") if line]


def check_labels(rows, task, data):
    labels = labels_of(task, data)
    for row, _, value in rows:
        if task["kind"] == "multiple_choice" and task["submission"]["form"] == "labels" and not re.fullmatch("0|[1-9][0-9]*", value):
            raise Refused(f'"{value}" is no number of a choice', row)
        for label in value if task["submission"]["form"] == "entities" else [value]:
            if labels is not None and label not in labels:
                raise Refused(f'"{label}" is none of the {len(labels)} labels of the task {task["name"]}', row)


def check_data(rows, task, source, data):
    asked = list(questions(task, source, data))
    for (row, key, value), (wanted, choices, text) in zip(rows, asked):
        if key != wanted:
            raise Refused(f"the id is {key}, expected {wanted}", row)
        if choices is not None and int(value) >= choices:
            raise Refused(f"the answer to {key} is {value} of {choices} choices counted from 0", row)
        if task["submission"]["form"] == "entities":
            for entity, spans in ((e, s) for texts in value.values() for e, s in texts.items()):
                for first, last in spans:
                    if text[first:last + 1] != entity:
                        raise Refused(f'"{entity}" does not stand at [{first}, {last}] in the text', row)
    if len(rows) != len(asked):
        raise Refused(f"{len(rows)} rows for the {len(asked)} of the test part", min(len(rows), len(asked)) + 1)


def summary(rows, form):
    if form == "entities":
        types = collections.Counter(t for _, _, table in rows for t, texts in table.items() for spans in texts.values() for _ in spans)
        return f"{sum(types.values())} entities: " + ", ".join(f"{t} {n}" for t, n in sorted(types.items()))
    if form == "answers":
        return f"{sum(not value for _, _, value in rows)} empty answers"
    values = collections.Counter(str(value) for _, _, value in rows)
    most = ", ".join(f"{value} {n}" for value, n in sorted(values.items(), key=lambda v: (-v[1], v[0]))[:5])
    return f"{len(values)} different {form}, most often {most}"


def tasks_by_file(folder):
    out = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".json"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                task = json.load(file)
            for source, answer_file in enumerate(task.get("submission", {}).get("files", [])):
                out[answer_file] = (task, source)
    return out


def check(path, args, tasks):
    """Prints what a file holds, or throws Refused."""
    name = os.path.basename(path)
    known = tasks.get(name[:-3] if name.endswith(".xz") else name)
    if not args.form and not known:
        raise Refused(f"no task has a submission of this name (known: {', '.join(sorted(tasks))}); --form checks the form alone")
    form = args.form or known[0]["submission"]["form"]
    rows = rows_of(read(path), form)
    notes = ["form alone"]
    if not args.form:
        task, source = known
        check_labels(rows, task, args.data)
        notes = [] if args.data else ["ids not compared (--data)"]
        if args.data:
            check_data(rows, task, source, args.data)
    print(f"{path}: good: {len(rows)} rows; {summary(rows, form)}" + (f"; {', '.join(notes)}" if notes else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+", metavar="PATH")
    parser.add_argument("--data", help="folder that the paths of the task files start from")
    parser.add_argument("--tasks", default=TASKS, help="folder of the task files (default: inputs/tasks)")
    parser.add_argument("--form", choices=FORMS, help="check this form and nothing else")
    args = parser.parse_args()
    bad = 0
    tasks = tasks_by_file(args.tasks) if not args.form else {}
    for path in args.paths:
        files = sorted(os.path.join(path, f) for f in os.listdir(path)) if os.path.isdir(path) else [path]
        if not files:
            print(f"check_submission.py: {path} holds no file", file=sys.stderr)
            bad += 1
        for file in files:
            try:
                check(file, args, tasks)
            except Refused as error:
                row = f":{error.row}" if error.row else ""
                print(f"check_submission.py: {file}{row}: {error}", file=sys.stderr)
                bad += 1
    sys.exit(2 if bad else 0)


if __name__ == "__main__":
    main()

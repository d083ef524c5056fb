"""Made-up tasks of 32 rows, one of each kind, that a model of 2 layers x 32 can learn by heart: drawn from a fixed generator, with the same
rows as train, dev and test. Nothing in a text tells its answer, so right answers come from training alone."""

import json
import os
import random

CHARACTERS = [chr(0x4E00 + 7 * i) for i in range(60)]
ROWS = 32


def write_vocab(path="vocab.txt"):
    with open(path, "w", encoding="utf-8") as out:
        out.write("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS, *"0123456789无效答案"]) + "\n")


def draw(rng, n):
    return "".join(rng.sample(CHARACTERS, n))


def classify(rng):
    row = {"text": draw(rng, 6), "label": rng.choice("abc")}
    return row, {"input": ["{text}"], "label": "{label}", "labels": ["a", "b", "c"], "submission": {"files": ["out.json"], "form": "labels"}}


def pair(rng):
    row = {"one": draw(rng, 5), "two": draw(rng, 4), "label": rng.choice("yn")}
    return row, {"kind": "classify", "input": ["{one}", "{two}"], "label": "{label}", "labels": ["n", "y"],
                 "submission": {"files": ["out.json"], "form": "labels"}}


def span(rng):
    context, start = draw(rng, 12), rng.randrange(9)
    answers = [{"text": context[start:start + rng.randint(1, 3)], "start": start}]
    return {"question": draw(rng, 3), "context": context, "answers": answers}, {
        "input": ["{question}", "{context}"], "answers": {"each": "answers", "text": "{text}", "start": "start"},
        "submission": {"files": ["out.json"], "form": "answers"}}


def entities(rng):
    text, found = draw(rng, 12), []
    for start, kind in ((rng.randrange(4), rng.choice("PQ")), (rng.randrange(6, 10), rng.choice("PQ"))):
        found.append({"type": kind, "text": text[start:start + 2], "start": start})
    return {"text": text, "entities": found}, {
        "input": ["{text}"], "entities": [{"each": "entities", "type": "{type}", "text": "{text}", "start": "start"}], "labels": ["P", "Q"],
        "submission": {"files": ["out.json"], "form": "entities"}}


def multiple_choice(rng):
    row = {"text": draw(rng, 5), "choice": [draw(rng, 2) for _ in range(3)], "answer": rng.randrange(3)}
    return row, {"input": ["{text}", "{choice}"], "choices": "choice", "answer": "{answer}", "submission": {"files": ["out.json"], "form": "labels"}}


def regress(rng):
    return {"one": draw(rng, 4), "two": draw(rng, 4), "score": round(rng.uniform(0, 5), 3)}, {"input": ["{one}", "{two}"], "label": "{score}"}


def rank(rng):
    return {"query": draw(rng, 4), "good": draw(rng, 3), "bad": draw(rng, 3)}, {
        "input": ["{query}", "{choice}"], "choices": ["{good}", "{bad}"], "grades": [1, 0]}


KINDS = {f.__name__: f for f in (classify, pair, span, entities, multiple_choice, regress, rank)}


def write_task(kind, name=None, /, **more):
    """NAME.json and NAME.jsonl in the current folder, and vocab.txt; returns the name of the task file. `more`: keys of the task file."""
    name = name or kind
    rng = random.Random(f"{kind} {name}")
    if not os.path.exists("vocab.txt"):
        write_vocab()
    rows = [KINDS[kind](rng) for _ in range(ROWS)]
    with open(f"{name}.jsonl", "w", encoding="utf-8") as out:
        for i, (row, _) in enumerate(rows):
            out.write(json.dumps({"id": i, **row}, ensure_ascii=False) + "\n")
    task = {"name": name, "kind": kind, **{part: f"{name}.jsonl" for part in ("train", "dev", "test")}, "max_length": 32, "head": {"size": 16}, **rows[0][1], **more}
    with open(f"{name}.json", "w", encoding="utf-8") as out:
        json.dump(task, out, ensure_ascii=False)
    return f"{name}.json"

#!/usr/bin/python3
"""Metrics and submission files against scorers written here independently: CMRC 2018's rules on perturbed answers, accuracy, F1 of classes
and of entities, read from the files that are handed in; and what check_submission.py lets through and refuses."""

import collections
import json
import lzma
import math
import os
import random
import re
import subprocess
import sys

import harness
from real_data import DATA, TASKS, VOCAB, have_data, packed
from scorers import cmrc, f1_of

TOOL = os.environ["SCORE_TOOL"]
CHECKER = os.path.join(harness.SOURCE, "postprocess/check_submission.py")
EXAMPLES = os.path.join(DATA, "submission_examples")
ROUNDING = 1e-12  # sums of some hundred numbers up to 1 in f64, in the same order


def tool(*words, stdin=None):
    done = subprocess.run([TOOL, *words], input=stdin, stdout=subprocess.PIPE, timeout=120, check=True)
    return json.loads(done.stdout)


# CMRC 2018.

def check_pairs(pairs):
    found = tool("cmrc", stdin=json.dumps(pairs).encode())
    assert len(found) == len(pairs)
    for (answer, right), (exact, f1) in zip(pairs, found):
        want_exact, want_f1 = cmrc(answer, right)
        assert exact == want_exact and abs(f1 - want_f1) < ROUNDING, f"{answer!r} to {right!r}: {exact}, {f1}, expected {want_exact}, {want_f1}"
    return found


def perturb(rng, text, context):
    """A part, more than it, another case, other punctuation, or another place."""
    at = max(context.find(text), 0)
    kind = rng.randrange(7)
    if kind == 0:
        return text
    if kind == 1:
        begin = rng.randrange(len(text))
        return text[begin:rng.randint(begin, len(text))]
    if kind == 2:
        return context[max(0, at - rng.randrange(6)):at + len(text) + rng.randrange(6)]
    if kind == 3:
        return f" 《{text.swapcase()}》。"
    if kind == 4:
        place = rng.randrange(len(text) + 1)
        return text[:place] + rng.choice(["，", ",", ".", " ", "-", "'s", "1,000", "…", "(a.b.)", "n't "]) + text[place:]
    if kind == 5:
        begin = rng.randrange(len(context))
        return context[begin:begin + rng.randint(1, 30)]
    return "".join(rng.sample(text, len(text)))


def test_cmrc_on_made_up_answers():
    rng = random.Random(3)
    letters = "一二三。，《》…U.S.A. it's don't \"q\" (1,234.5) a, b - _ ... ！é\u2028"
    pairs = []
    for _ in range(1000):
        few = rng.sample(letters, 6)
        answer, *right = ("".join(rng.choices(few, k=rng.randrange(12))) for _ in range(rng.randint(2, 4)))
        pairs.append([answer, right])
    f1 = [f for _, f in check_pairs(pairs)]
    assert 0.1 < sum(f1) / len(f1) < 0.9  # neither all alike nor all different


def test_cmrc_on_the_dev_part():
    if not have_data():
        return
    rng = random.Random(1)
    rows = [(p["context"], q) for a in json.loads(packed(DATA, "cmrc2018/dev.json.xz"))["data"] for p in a["paragraphs"] for q in p["qas"]]
    pairs = []
    for context, question in rng.sample(rows, 1000):
        right = [a["text"] for a in question["answers"]]
        pairs.append([perturb(rng, rng.choice(right), context), right])
    exact = [e for e, _ in check_pairs(pairs)]
    assert 0.1 < sum(exact) / len(exact) < 0.9


# Tasks of CLUE: the labelled rows of another part stand in for those of test.

def make_task(name, rows, **changes):
    """Task file `name` with these rows as train and test, in the folder `name`, answered by the tool; its answer file's text and the metrics."""
    os.makedirs(name, exist_ok=True)
    with open(os.path.join(TASKS, f"{name}.json"), encoding="utf-8") as file:
        task = json.load(file)
    with open(f"{name}/rows", "w", encoding="utf-8", newline="\n") as file:
        file.write(rows)
    answer_file = task["submission"]["files"][0]
    for key in ("dev", "hashed"):
        task.pop(key, None)
    task.update(train="rows", test="rows", guard=False, submission={**task["submission"], "files": [answer_file]}, **changes)
    with open(f"{name}/task.json", "w", encoding="utf-8") as file:
        json.dump(task, file)
    metrics = tool("task", f"{name}/task.json", name, VOCAB, "5", f"{name}/out")
    with open(f"{name}/out/{answer_file}", encoding="utf-8") as file:
        text = file.read()
    checked = subprocess.run([sys.executable, CHECKER, f"{name}/out/{answer_file}", "--data", name, "--tasks", name], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, check=False)
    assert checked.returncode == 0, checked.stdout.decode()
    return text, metrics


def close(metrics, name, wanted):
    assert abs(metrics[name] - wanted) < ROUNDING, f"{name} {metrics[name]}, expected {wanted}"
    assert 0.05 < wanted < 0.98, f"{name} {wanted} tells too little"


def test_labels():
    if not have_data():
        return
    for name, source in (("tnews", "tnews/dev.json.xz"), ("cluewsc2020", "cluewsc2020/dev.json.xz"), ("ocnli", "ocnli/train.3k.json.xz")):
        rows = [json.loads(line) for line in packed(DATA, source).split("\n") if line]
        rows = [row for row in rows if row["label"] != "-"][:400]
        text, metrics = make_task(name, "".join(json.dumps(row) + "\n" for row in rows), id="no id")  # numbered
        right = [row["label"] for row in rows]
        answers = [json.loads(line) for line in text.strip("\n").split("\n")]
        assert [a["id"] for a in answers] == list(range(len(right))) and len(right) == metrics["examples"]
        types = collections.defaultdict(lambda: (set(), set()))
        for i, label in enumerate(right):
            types[label][0].add(i)
            types[answers[i]["label"]][1].add(i)
        close(metrics, "accuracy", sum(label == answer["label"] for label, answer in zip(right, answers)) / len(right))
        close(metrics, "macro_f1", f1_of(types)[1])


def test_choices():
    if not have_data():
        return
    records = json.loads(packed(DATA, "c3/d-dev.json.xz"))[:200]
    for number, question in enumerate(q for record in records for q in record[1]):
        question["id"] = number
    text, metrics = make_task("c3", json.dumps(records))
    right = {q["id"]: q["choice"].index(q["answer"]) for record in records for q in record[1]}
    answers = {a["id"]: int(a["label"]) for a in map(json.loads, text.strip("\n").split("\n"))}
    assert list(answers) == list(right)
    close(metrics, "accuracy", sum(answers[i] == right[i] for i in right) / len(right))


def best_assignment(scores):
    """The greatest sum of scores of different choices, row by row over the sets of choices taken."""
    best = {0: 0.0}
    for row in scores:
        after = {}
        for taken, total in best.items():
            for choice, score in enumerate(row):
                if not taken >> choice & 1:
                    key = taken | 1 << choice
                    after[key] = max(after.get(key, -math.inf), total + score)
        best = after
    return max(best.values())


def test_assigned_choices():
    if not have_data():
        return
    rng, lines, right = random.Random(2), [], {}
    for line in range(60):
        marks = [f"#idiom{line * 10 + k:06}#" for k in range(rng.randint(1, 8))]
        for mark, answer in zip(marks, rng.sample(range(10), len(marks))):
            right[mark] = answer
        lines.append({"content": [f"他说{m}，大家都笑了。" for m in marks], "candidates": [f"成语{'甲乙丙丁戊己庚辛壬癸'[k]}语" for k in range(10)]})
    os.makedirs("chid", exist_ok=True)
    with open("chid/answers", "w", encoding="utf-8") as file:
        json.dump(right, file)
    with open(os.path.join(TASKS, "chid.json"), encoding="utf-8") as file:
        reader = json.load(file)["reader"]
    reader["join"]["files"] = "answers"
    text, metrics = make_task("chid", "".join(json.dumps(line) + "\n" for line in lines), reader=reader)
    answers = json.loads(text)
    assert list(answers) == list(right)
    for line in lines:
        taken = [answers[m] for content in line["content"] for m in re.findall("#idiom[0-9]+#", content)]
        assert len(set(taken)) == len(taken), "a candidate is taken twice in a line"
    close(metrics, "assigned_accuracy", sum(answers[m] == right[m] for m in right) / len(right))
    with open("chid/out/answers.jsonl", encoding="utf-8") as file:
        alone = {a["id"]: a for a in map(json.loads, file)}
    close(metrics, "accuracy", sum(alone[m]["choice"] == right[m] for m in right) / len(right))
    for line in lines:
        marks = [m for content in line["content"] for m in re.findall("#idiom[0-9]+#", content)]
        scores = [[math.log(p) for p in alone[m]["probabilities"]] for m in marks]  # logits, but for a number of each row
        taken = sum(scores[i][answers[m]] for i, m in enumerate(marks))
        assert abs(taken - best_assignment(scores)) < 1e-9, f"{taken}, best {best_assignment(scores)}"  # 2^-40 of the spread, and logarithms


def test_answers_to_questions():
    if not have_data():
        return
    whole = json.loads(packed(DATA, "cmrc2018/dev.json.xz"))
    whole["data"] = whole["data"][:100]
    text, metrics = make_task("cmrc2018", json.dumps(whole))
    right = {q["id"]: [a["text"] for a in q["answers"]] for d in whole["data"] for p in d["paragraphs"] for q in p["qas"]}
    answers = json.loads(text)
    assert list(answers) == list(right)
    scores = [cmrc(answers[i], right[i]) for i in right]
    close(metrics, "exact_match", sum(e for e, _ in scores) / len(scores))
    close(metrics, "f1", sum(f for _, f in scores) / len(scores))


def test_entities():
    if not have_data():
        return
    rows = "\n".join(packed(DATA, "cluener/train.json.xz").split("\n")[:400]) + "\n"
    text, metrics = make_task("cluener", rows)
    types = collections.defaultdict(lambda: (set(), set()))
    for side, lines in enumerate((rows, text)):
        for number, line in enumerate(lines.strip("\n").split("\n")):
            for kind, table in json.loads(line)["label"].items():
                for places in table.values():
                    types[kind][side].update((number, first, last) for first, last in places)
    micro, macro = f1_of(types)
    close(metrics, "micro_f1", micro)
    close(metrics, "macro_f1", macro)


def task_of(name, rows=None):
    """A task file whose test part is `rows`, or else its dev part, or where that is a share of it the train part."""
    with open(os.path.join(TASKS, f"{name}.json"), encoding="utf-8") as file:
        task = json.load(file)
    rows = rows or task.get("dev") or task["train"]
    for key in ("dev", "hashed", "submission"):
        task.pop(key, None)
    task.update(train=rows, test=rows, guard=False)
    with open(f"{name}.json", "w", encoding="utf-8") as file:
        json.dump(task, file)
    return f"{name}.json"


def test_relations():
    if not have_data():
        return
    os.makedirs("duie", exist_ok=True)
    lines = packed(DATA, "duie_5k/train.json.xz").split("\n")[:300]
    with open("duie/rows", "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    metrics = tool("task", task_of("duie", "rows"), "duie", VOCAB, "5", "duie/out")
    types = collections.defaultdict(lambda: (set(), set()))
    with open("duie/out/answers.jsonl", encoding="utf-8") as file:
        for number, (line, answer) in enumerate(zip(lines, map(json.loads, file))):
            for triple in json.loads(line)["spo_list"]:
                types[triple["predicate"]][0].add((number, triple["subject"], triple["object"]["@value"]))
            for triple in answer["relations"]:
                types[triple["type"]][1].add((number, triple["subject"]["text"], triple["object"]["text"]))
    micro, macro = f1_of(types)
    close(metrics, "micro_f1", micro)
    close(metrics, "macro_f1", macro)


def test_a_head_that_knows_the_cells_is_right():
    """Gold cells, through windows, characters and texts, are the data's answers; what is lost is what preparation counts as lost."""
    if not have_data():
        return
    for name in ("cmrc2018", "dureader_checklist", "duie", "cluener", "weibo_ner", "duee", "literature_relations", "qbqtc", "sts_b_zh", "e_kar"):
        metrics = tool("task", task_of(name), DATA, VOCAB, "0", "knows")
        own = next(iter(metrics.items()))
        assert own[1] > 0.98, f"{name}: {own}"


# check_submission.py.

def check(*words, expect=0):
    done = subprocess.run([sys.executable, CHECKER, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    text = done.stdout.decode()
    assert done.returncode == expect, f"{words}: exit code {done.returncode}, expected {expect}\n{text}"
    return text


def test_real_submissions_have_the_forms():
    if not have_data():
        return
    for name, form, rows in (("cluener2020_results", "entities", 1345), ("cluewsc2020_predict", "labels", 290), ("cmrc2018_predict", "answers", 2000),
                             ("csl_predict", "labels", 3000), ("fewclue_bustm_predict", "labels", 2000), ("fewclue_csldcp_predict", "labels", 2999),
                             ("fewclue_cslf_predict", "labels", 3000), ("fewclue_eprstmt_predict", "labels", 753),
                             ("fewclue_iflytekf_predict", "labels", 2600), ("fewclue_ocnlif_predict", "labels", 3000), ("fewclue_tnewsf_predict", "labels", 1500)):
        assert f": good: {rows} rows" in check(os.path.join(EXAMPLES, f"{name}.json.xz"), "--form", form)
    assert ":5: not JSON" in check(os.path.join(EXAMPLES, "cluener_predict.json.xz"), "--form", "entities", expect=2)  # a template's ?????
    # This one names its question's answers by another key.
    assert ':1: expected {"id": …, "label": …}' in check(os.path.join(EXAMPLES, "fewclue_chidf_predict.json.xz"), "--form", "labels", expect=2)
    assert ": good: 2000 rows" in check(os.path.join(EXAMPLES, "cmrc2018_predict.json.xz"), "--data", DATA)


def damaged(text, change, name="damaged.json"):
    with open(name, "w", encoding="utf-8", newline="\n") as file:
        file.write(change(text))
    return name


def write_small_task(task, rows, name):
    os.makedirs(f"tasks-{name}", exist_ok=True)
    with open(f"tasks-{name}/t.json", "w", encoding="utf-8") as file:
        json.dump({"name": name, "test": "rows", "submission": {"files": ["damaged.json"], "form": task.pop("form")}, **task}, file)
    with open(f"tasks-{name}/rows", "w", encoding="utf-8") as file:
        file.write(rows)
    return ["--tasks", f"tasks-{name}", "--data", f"tasks-{name}"]


def replaced(old, new):
    def change(text):
        assert old in text
        return text.replace(old, new, 1)
    return change


def test_damaged_files_are_refused_by_their_row():
    label = write_small_task({"form": "labels", "kind": "classify", "labels": ["0", "1"]}, "".join(f'{{"id": {i}}}\n' for i in range(4)), "labels")
    text = "".join(f'{{"id": {i}, "label": "{i % 2}"}}\n' for i in range(4))
    entity = write_small_task({"form": "entities", "kind": "entities", "labels": ["A"]}, '{"id": 0, "text": "一二三"}\n{"id": 1, "text": "四"}\n', "entities")
    marks = '{"id": 0, "label": {"A": {"二三": [[1, 2]]}}}\n{"id": 1, "label": {}}\n'
    choice = write_small_task({"form": "choices", "kind": "multiple_choice", "choices": "c"}, '{"id": "x", "c": [1, 2]}\n{"id": "y", "c": [1, 2]}\n', "choices")
    numbers = '{\n    "x": 1,\n    "y": 0\n}\n'
    answer = write_small_task({"form": "answers", "kind": "span"}, '{"id": "x"}\n{"id": "y"}\n', "answers")
    texts = '{\n    "x": "一",\n    "y": ""\n}\n'
    for good, words in ((text, label), (marks, entity), (numbers, choice), (texts, answer)):
        assert ": good: " in check(damaged(good, lambda t: t), *words)
    for good, words, change, message in (
            (text, label, lambda t: t[:-8], ":4: not JSON"),
            (text, label, lambda t: t[:t.rindex("{")], ":4: 3 rows for the 4 of the test part"),
            (text, label, lambda t: t + '{"id": 4, "label": "0"}\n', ":5: 5 rows for the 4 of the test part"),
            (text, label, replaced('"id": 2', '"id": 1'), ":3: the id 1 stands in row 2 already"),
            (text, label, lambda t: "\n".join(sorted(t.split("\n")[:-1], reverse=True)) + "\n", ":1: the id is 3, expected 0"),
            (text, label, replaced('"id": 2', '"id": "2"'), ":3: the id is 2, expected 2"),
            (text, label, replaced('"label": "1"', '"label": "2"'), ':2: "2" is none of the 2 labels of the task labels'),
            (text, label, replaced('"label": "1"', '"label": 1'), ":2: the label of 1 is no text"),
            (text, label, replaced('{"id": 1, "label": "1"}', '{"label": "1", "id": 1}'), ':2: expected {"id": …, "label": …}'),
            (text, label, replaced("\n", "\n\n"), ":2: not JSON"),
            (text, label, lambda t: "", ": is empty"),
            (text, label, replaced('{"id": 1,', '{"id": 1, "id": 1,'), ':2: the key "id" stands 2 times'),
            (marks, entity, replaced("[[1, 2]]", "[[1, 3]]"), ':1: "二三" has 2 characters, its place [1, 3] does not'),
            (marks, entity, replaced("[[1, 2]]", "[[0, 1]]"), ':1: "二三" does not stand at [0, 1] in the text'),
            (marks, entity, replaced("[[1, 2]]", "[1, 2]"), ':1: the places of "二三" are no list of [first, last]'),
            (marks, entity, replaced('"A"', '"B"'), ':1: "B" is none of the 1 labels of the task entities'),
            (marks, entity, replaced("{}", "[]"), ":2: the label is no table of types, texts and places"),
            (numbers, choice, replaced("1", "2"), ":1: the answer to x is 2 of 2 choices counted from 0"),
            (numbers, choice, replaced("0", '"0"'), ":2: the answer to y is no number of a choice"),
            (numbers, choice, replaced('"y"', '"x"'), ': the key "x" stands 2 times'),
            (numbers, choice, replaced(",\n", "\n"), ":3: not JSON"),
            (texts, answer, replaced('"一"', "null"), ":1: the answer of x is no text"),
            (texts, answer, replaced('"y"', '"z"'), ":2: the id is z, expected y")):
        found = check(damaged(good, change), *words, expect=2)
        assert f"damaged.json{message}" in found and "Traceback" not in found, f"{found!r} lacks {message!r}"
    with open("cut.json.xz", "wb") as file:
        file.write(lzma.compress(text.encode())[:-9])
    assert "cut.json.xz: cannot be read" in check("cut.json.xz", "--form", "labels", expect=2)
    assert "absent.json: cannot be read" in check("absent.json", "--form", "labels", expect=2)
    assert "no task has a submission of this name (known: damaged.json)" in check("cut.json.xz", "--tasks", "tasks-labels", expect=2)


if __name__ == "__main__":
    harness.main(globals())

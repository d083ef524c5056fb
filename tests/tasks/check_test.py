#!/usr/bin/python3
"""roformer multitask --check as a new user meets it: a made-up CSV with its one JSON file, then everything that can be wrong with them."""

import json
import os
import subprocess
import tempfile

ROFORMER = os.environ["ROFORMER"]
CSV = "mood,what they said\n" + "".join(f'{mood},"{text}, {i}"\n' for i in range(40) for mood, text in (("good", "天气很好"), ("bad", "下雨了")))
TASK = {"name": "mood", "kind": "classify", "reader": {"format": "csv"}, "train": "mood.csv", "hashed": {"dev": 0.2}, "input": ["{what they said}"],
        "label": "{mood}", "labels": ["bad", "good"]}
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"天气很好下雨了0123456789,"]


class Folder:
    def __init__(self, path):
        self.path = path
        self.write("vocab.txt", "\n".join(VOCAB) + "\n")

    def write(self, name, text):
        with open(os.path.join(self.path, name), "w", encoding="utf-8") as file:
            file.write(text)

    def check(self, task, rows=CSV, more=(), names=("mood.json",)):
        self.write("mood.json", json.dumps(task, ensure_ascii=False))
        self.write("mood.csv", rows)
        command = [ROFORMER, "multitask", "--check", *names, "--set", "vocab=vocab.txt", *more]
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, timeout=60, check=False)

    def refused(self, *parts, **arguments):
        """Exit code 2 and one message that holds all of `parts`."""
        run = self.check(**arguments)
        lines = run.stderr.strip().splitlines()
        assert run.returncode == 2 and len(lines) == 1 and run.stdout == "", (run.returncode, run.stdout, run.stderr)
        for part in parts:
            assert part in lines[0], (part, lines[0])


def test_new_set(folder):
    run = folder.check(TASK)
    assert run.returncode == 0, run.stderr
    assert "mood (classify, 2 labels, max_length 128)" in run.stdout, run.stdout
    kept = [int(line.split()[1]) for line in run.stdout.splitlines() if line.startswith(("  train:", "  dev:"))]
    assert len(kept) == 2 and sum(kept) == 80 and min(kept) > 0, run.stdout
    assert "labels bad " in run.stdout and "1 tasks, 80 rows" in run.stdout, run.stdout
    # Through the cache, made and read: the same report.
    for _ in range(2):
        assert folder.check(TASK, more=("--set", "cache=cache")).stdout == run.stdout
    assert len([name for name in os.listdir(os.path.join(folder.path, "cache")) if name.endswith(".h5")]) == 1


def test_bad_input(folder):
    folder.refused("mood.csv:82", 'the label "ugly" is not in the table of 2 labels', "task mood in mood.json", task=TASK, rows=CSV + "ugly,天气\n")
    folder.refused("mood.csv:82", 'the text of "{what they said}" is empty', task=TASK, rows=CSV + "bad,\n")
    folder.refused("mood.csv:82", "expected 2 columns, found 3", task=TASK, rows=CSV + "bad,天,气\n")
    folder.refused("mood.csv:2", 'the field "said" is missing', task={**TASK, "input": ["{said}"]})
    folder.refused("mood.json", 'unknown key "lables"', 'did you mean "labels"', task={**TASK, "lables": []})
    folder.refused("mood.json: kind", 'unknown "classification"', task={**TASK, "kind": "classification"})
    folder.refused("mood.json: name", 'a task "mood" already', task=TASK, names=("mood.json", "./mood.json"))
    folder.refused("mood.json: train", "moods.csv does not exist", task={**TASK, "train": "moods.csv"})
    folder.refused("absent.json", task=TASK, names=("absent.json",))
    folder.refused("vocab", task=TASK, more=("--set", "vocab="))
    folder.refused("needs task files", task=TASK, names=())
    folder.refused('unknown key "vocabulary"', task=TASK, more=("--set", "vocabulary=x"))
    span = {"name": "mood", "kind": "span", "reader": {"format": "csv"}, "train": "mood.csv", "input": ["{mood}", "{what they said}"], "answers": {"text": "{mood}"}}
    folder.refused("mood.csv:2", 'the answer "good" does not stand in the context', task=span)
    choice = {"name": "mood", "kind": "multiple_choice", "reader": {"format": "jsonl"}, "train": "mood.csv", "input": ["{choice}"], "choices": "of", "answer": "{right}"}
    folder.refused("mood.json: pad_choices", "has 3 choices, others have 2", task=choice, rows='{"of": ["好", "天"], "right": 0}\n{"of": ["好", "雨", "天"], "right": 0}\n')
    assert not os.path.exists(os.path.join(folder.path, "half")), "a refused check leaves nothing"
    folder.refused("mood.csv:82", task=TASK, rows=CSV + "ugly,天气\n", more=("--set", "cache=half"))
    assert not os.path.exists(os.path.join(folder.path, "half")), "a refused check leaves nothing"


def main():
    for test in (test_new_set, test_bad_input):
        with tempfile.TemporaryDirectory() as path:
            test(Folder(path))
        print(f"{test.__name__}: ok")


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""clue_table.py: the article's columns, means and deviations against figures written by hand, missing data, what is no table."""

import json
import os
import subprocess
import sys

import h5py
import harness

TABLE = os.path.join(harness.SOURCE, "postprocess/clue_table.py")


def write(path, **tasks):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with h5py.File(path, "w") as file:
        clue = file.create_group("clue")
        for name, (metric, missing, dev) in tasks.items():
            group = clue.create_group(name)
            group.attrs.update(metric=metric, missing=missing, dev_examples=2599, train_examples=5570)
            if not missing:
                group["dev"] = dev
                group["seed"] = list(range(len(dev)))


def table(*words, expect=0):
    env = {k: v for k, v in os.environ.items() if k != "RF_DATA"}
    done = subprocess.run([sys.executable, TABLE, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, env=env, check=False)
    text = done.stdout.decode()
    assert done.returncode == expect and "Traceback" not in text, f"{words}: exit code {done.returncode}, expected {expect}\n{text}"
    return text


def test_cells_are_means_with_deviations_in_the_articles_order():
    write("one/clue.h5", cluener=("micro_f1", "", [0.5]), iflytek=("accuracy", "", [0.6, 0.62, 0.64]), cluewsc2020=("accuracy", "", [0.7]),
          chid=("assigned_accuracy", "no test part", []))
    published = {"clue_1_1_test": {"source": "an article", "columns": ["iflytek", "tnews"], "A|B": [60.0, 50.5]}}
    with open("published.json", "w", encoding="utf-8") as file:
        json.dump(published, file)
    text = table("one", "second=one/clue.h5", "--published", "published.json", "--markdown", "t.md", "--html", "t.html")
    lines = text.split("\n")
    assert lines[0] == "| model | part | iflytek | tnews | afqmc | cmnli | ocnli | wsc | csl | cmrc2018 | c3 | chid | cluener | mean |", lines[0]
    assert lines[2] == "| A\\|B | test | 60.00 | 50.50 | – | – | – | – | – | – | – | – | – | 55.25 (of 2) |", lines[2]
    # 60, 62, 64: deviation 2. Mean of 62, 70 and 50.
    assert lines[3] == "| one | dev | 62.00 ± 2.00 | – | – | – | – | 70.00 | – | – | – | – | 50.00 | 60.67 (of 3) |", lines[3]
    assert lines[4].startswith("| second | dev | 62.00 ± 2.00 |"), lines[4]
    assert "| one | iflytek | accuracy | 5570 of 12133 | 2599 | 3 |  |" in lines, text
    assert "| one | chid | assigned_accuracy | 5570 | 2599 | 0 | no test part |" in lines, text
    assert "| one | tnews | – | – | – | – | not in the file |" in lines, text
    assert "Published figures: an article." in lines
    assert open("t.md", encoding="utf-8").read() == text
    page = open("t.html", encoding="utf-8").read()
    assert "<td>one</td><td>dev</td><td class=n>62.00 ± 2.00</td>" in page and "A|B" in page, page


def test_published_rows_may_be_absent_and_say_so():
    write("run/clue.h5", tnews=("accuracy", "", [0.5]))
    assert "Published figures are left out: neither --published nor RF_DATA says where they are." in table("run")
    assert "Published figures are left out: nothing.json is not there." in table("run", "--published", "nothing.json")


def test_what_is_no_table_is_named():
    write("bad/clue.h5", tnews=("accuracy", "", [0.5]), atec=("accuracy", "", [0.5]))
    assert "/clue/atec is none of the tasks" in table("bad", expect=2)
    os.makedirs("empty", exist_ok=True)
    assert "clue.h5 cannot be read" in table("empty", expect=2)
    with h5py.File("other.h5", "w") as file:
        file.create_group("train")
    assert "other.h5 has no group /clue" in table("other.h5", expect=2)
    with h5py.File("bare.h5", "w") as file:
        file.create_group("clue/tnews").attrs.update(metric="accuracy", missing="")
    assert "/clue/tnews has no dataset dev and does not say what is missing" in table("bare.h5", expect=2)
    write("run/clue.h5", tnews=("accuracy", "", [0.5]))
    assert "two runs are called run: name them NAME=PATH" in table("run", "run/clue.h5", expect=2)


if __name__ == "__main__":
    harness.main(globals())

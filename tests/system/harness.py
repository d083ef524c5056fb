"""What the system tests share: the program under test, a small text made up from a fixed generator, and running commands.
A test file is a list of functions named test_*; `main` runs them all in a fresh folder and reports the first failure."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import traceback

ROFORMER = os.environ["ROFORMER"]
SOURCE = os.environ["RF_SOURCE_DIR"]
SKIP = 77


def write_text(path, documents=300, seed=7):
    """Sentences over a few hundred characters with a learnable order: each word is drawn from a list of its predecessor."""
    rng = random.Random(seed)
    characters = [chr(0x4E00 + 7 * i) for i in range(240)]
    words = ["".join(rng.choices(characters, k=rng.choice((1, 2, 2, 3)))) for _ in range(150)]
    after = {w: rng.sample(words, 4) for w in words}
    with open(path, "w", encoding="utf-8") as out:
        for _ in range(documents):
            word, parts = rng.choice(words), []
            for _ in range(rng.randint(8, 60)):
                parts.append(word)
                word = rng.choice(after[word])
            out.write("".join(parts) + "。\n")


def run(*words, ranks=1, expect=0, stdin=None, timeout=240, env=None):
    """Runs roformer; the output of both streams is returned as text. Fails when the exit code is not the expected one."""
    command = [ROFORMER, *map(str, words)]
    if ranks > 1:
        command = ["mpirun", "-n", str(ranks), *command]
    done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout,
                          env={**os.environ, **(env or {})})
    text = done.stdout.decode("utf-8", "replace")
    assert done.returncode == expect, f"{' '.join(command)}: exit code {done.returncode}, expected {expect}\n{text}"
    return text


def sets(**values):
    """--set arguments; a double underscore stands for the dot of a path."""
    words = []
    for key, value in values.items():
        words += ["--set", f"{key.replace('__', '.')}={value}"]
    return words


def prepare(documents=300):
    """text.txt, vocab.txt and corpus/ in the current folder, made once."""
    if not os.path.exists("corpus/corpus.json"):
        write_text("text.txt", documents)
        run("build-vocab", *sets(text="text.txt", output="vocab.txt", size=400))
        run("build-corpus", *sets(text="text.txt", vocab="vocab.txt", output="corpus", segmenter__name="none"))


def tiny(output, **more):
    """Settings of a run that takes about a second."""
    settings = dict(model__hidden_size=64, model__num_attention_heads=4, model__num_hidden_layers=2, model__intermediate_size=128,
                    model__vocab_size=400, corpus="corpus", vocab="vocab.txt", output=output, steps=10, batch__sequences=16,
                    batch__max_length=32, batch__lanes=4, schedule__lr="[[0,0],[5,1]]", schedule__alpha="[[0,0],[10,1]]",
                    optimizer__lr=2e-3, log_every=5, eval_every=5, checkpoint_every=5, dtype="f32", parallel__threads=1,
                    evaluation__documents=20)
    settings.update(more)
    return sets(**settings)


def state(folder):
    """The digest of the newest checkpoint's whole state."""
    text = run("inspect", folder)
    return [line for line in text.splitlines() if line.startswith("digest state")][0]


def main(tests):
    folder = tempfile.mkdtemp(prefix="roformer-test-")
    os.chdir(folder)
    failed = 0
    try:
        for name, test in sorted(tests.items()):
            if not name.startswith("test_"):
                continue
            try:
                test()
                print(f"ok   {name}", flush=True)
            except Exception:
                failed += 1
                print(f"FAIL {name}", flush=True)
                traceback.print_exc(file=sys.stdout)
    finally:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if failed else 0)

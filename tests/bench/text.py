#!/usr/bin/python3
"""Text preparation in MB of UTF-8 a second of one core's processor time: tests/bench/text.py --text FOLDER --vocab vocab.txt [--peer PYTHON] ...

FOLDER holds .jsonl files, plain or .xz. Rounds alternate: tokenizer and segmenter (bench_text), the peer's tokenizer (a Python that has the package
`tokenizers`), build-corpus on one rank and on two, from plain and from .xz files; with --base also another build of roformer."""

import argparse
import json
import lzma
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]


def text_of(record):
    return record.get("text") or record.get("content") or "".join(record.get("words", []))


def prepare(a, folder):
    """Plain and .xz copies of --megabytes of the text, and its documents a line each."""
    total = 0
    for path in sorted(a.text.glob("*.jsonl*")):
        raw = lzma.open(path).read() if path.suffix == ".xz" else path.read_bytes()
        name = path.name.removesuffix(".xz")
        for kind in ("plain", "xz"):
            (folder / kind).mkdir(exist_ok=True)
        (folder / "plain" / name).write_bytes(raw)
        (folder / "xz" / f"{name}.xz").write_bytes(path.read_bytes() if path.suffix == ".xz" else lzma.compress(raw))
        texts = [text_of(json.loads(line)) for line in raw.decode().split("\n") if line.strip()]
        with open(folder / "lines.txt", "a", encoding="utf-8", newline="\n") as out:
            out.writelines(" ".join(text.split("\n")).replace("\r", " ") + "\n" for text in texts)
        total += sum(len(text.encode()) for text in texts)
        if total >= a.megabytes * 1e6:
            break
    if total == 0:
        sys.exit(f"{a.text} holds no .jsonl or .jsonl.xz")
    return total


def child_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def output_of(*command):
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}")
    return done.stdout.splitlines()[-1]


def build(a, roformer, folder, kind, ranks):
    """Processor seconds of all ranks, those of the slowest rank, wall seconds. `time` writes a line a rank."""
    settings = {"text": folder / kind, "vocab": a.vocab, "output": folder / "corpus", "segmenter.dictionary": a.dictionary}
    command = [roformer, "build-corpus", *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")), "--restart"]
    begin = time.monotonic()
    done = subprocess.run(list(map(str, [*(["mpirun", "-n", ranks] if ranks > 1 else []), "bash", "-c", 'TIMEFORMAT="processor %U %S"; time "$@"', "_", *command])),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wall = time.monotonic() - begin
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}")
    used = [sum(map(float, line.split()[1:])) for line in done.stdout.replace("\r", "\n").split("\n") if line.startswith("processor ")]
    if len(used) != ranks:
        sys.exit(f"no times of {ranks} ranks in:\n{done.stdout}")
    return {"all": sum(used), "slowest": max(used), "wall": wall}


def main():
    parser = argparse.ArgumentParser(prog="text.py")
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--vocab", type=pathlib.Path, required=True)
    parser.add_argument("--dictionary", default="/usr/lib/python3/dist-packages/jieba/dict.txt")
    parser.add_argument("--megabytes", type=float, default=150, help="of text; whole files are taken until there is as much")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--roformer", type=pathlib.Path, default=SOURCE / "build/cpu-release/roformer")
    parser.add_argument("--bench", type=pathlib.Path, default=SOURCE / "build/cpu-release/tests/bench/bench_text")
    parser.add_argument("--base", type=pathlib.Path, help="another roformer, for build-corpus")
    parser.add_argument("--base-bench", type=pathlib.Path, help="another bench_text")
    parser.add_argument("--peer", help="a Python with the package tokenizers")
    a = parser.parse_args()
    programs = {"roformer": a.roformer, **({"base": a.base} if a.base else {})}
    benches = {"": a.bench, **({", base": a.base_bench} if a.base_bench else {})}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        megabytes = prepare(a, folder) / 1e6
        rates = {}
        for number in range(a.rounds):
            def add(what, seconds):
                rates.setdefault(what, []).append(megabytes / seconds)
            for name, bench in benches.items():
                ours = json.loads(output_of(bench, a.vocab, a.dictionary, folder / "lines.txt"))
                add(f"tokenizer{name}", ours["tokenizer_seconds"])
                add(f"segmenter{name}", ours["segmenter_seconds"])
            if a.peer:
                peer = json.loads(output_of(a.peer, SOURCE / "tests/bench/peers/peer_tokenizers.py", a.vocab, folder / "lines.txt"))
                add(f"tokenizer, tokenizers {peer['version']}", peer["seconds"])
            begin = child_seconds()
            for path in sorted((folder / "xz").iterdir()):
                subprocess.run(["xz", "-dc", path], stdout=subprocess.DEVNULL, check=True)
            add("xz -dc alone", child_seconds() - begin)
            for kind in ("plain", "xz"):
                for name, program in programs.items():
                    for ranks in (1, 2):
                        used = build(a, program, folder, kind, ranks)
                        what = f"build-corpus, {kind}, {name}, {ranks} rank{'s' if ranks > 1 else ''}"
                        add(what, used["all"])
                        add(f"{what}, slowest rank", used["slowest"])
                        add(f"{what}, wall", used["wall"])
            print(f"round {number + 1} of {a.rounds}", file=sys.stderr, flush=True)
    print(f"{megabytes:.1f} MB of text, medians of {a.rounds} rounds (all of them behind)\n\n| what | MB/s a core | its rounds |\n| :-- | --: | :-- |")
    for what, values in rates.items():
        print(f"| {what} | {statistics.median(values):.1f} | {' '.join(f'{v:.1f}' for v in values)} |")


if __name__ == "__main__":
    main()

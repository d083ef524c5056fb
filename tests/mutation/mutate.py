#!/usr/bin/python3
"""Takes each statement that orders device work out of the sources, one at a time, and looks whether a test fails.

    tests/mutation/mutate.py --list                 # the sites
    tests/mutation/mutate.py --only attention       # tries those whose place or text matches
    tests/mutation/mutate.py --table                # what is known so far, as a table

Works in a copy of the tree with builds of its own (build/mutation); the sources themselves are never touched. Results are kept
there, one JSON line a site, and a later call goes on where this one stopped; a site is tried again when its file, a test that
covers it or the emulator has changed. `if (false)` before the statement takes it out: it is still compiled, but never runs."""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

SOURCE = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
PLAIN, RACES = "emulated", "emulated-races"

# What orders device work: in kernels, and in the code that launches them.
DEVICE_SITE = re.compile(r"\b(?:block_barrier|warp_barrier|copy_async_wait<\w+>|copy_async_commit)\(\);")
HOST_SITE = re.compile(r"""
      \bcheck\(cuda(?:EventRecord|EventSynchronize|StreamWaitEvent|StreamSynchronize|DeviceSynchronize)\(.*?\);
    | \bcuda::(?:record|wait|synchronise)\(.*?\);
    | (?<![\w.:>])synchronise\(\w+\);
    | \b[\w.]+(?:\(\)|\[[^;]*?\])?(?:[\w.]|->)*(?:\.|->)(?:record|wait|hold|synchronise)\(\w*\);""", re.VERBOSE)
# Loops that ask until the device is done: the question is answered at once.
POLL_SITE = re.compile(r"\(code = cudaStreamQuery\(.*?\)\) != cudaSuccess")
# Survivors that should: with what the table says of them instead of trying.
EXPLAINED = {("src/app/bench_products.cpp", "stream.synchronise();"): "measures: before the clock is read, or before memory is freed, which waits itself",
             ("src/model/step.hpp", "stream_.synchronise();"): "orders nothing: the clock is read after it, in a run that measures its phases",
             ("src/train/trainer.cpp", "model_.stream().synchronise();"): "orders nothing: the clock is read after it, in a run that measures its phases"}
HOST_FOLDERS = ("core", "comm", "params", "model", "optim", "tasks", "train", "app")


class Site:
    def __init__(self, file, line, begin, end, text, replacement):
        self.file, self.line, self.begin, self.end, self.text, self.replacement = file, line, begin, end, text, replacement

    @property
    def place(self):
        return f"{self.file}:{self.line}"


def code_only(text):
    """The same text with comments blanked, so that places stay."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.DOTALL)


def sites_of(file):
    with open(os.path.join(SOURCE, file), encoding="utf-8") as f:
        text = code_only(f.read())
    patterns = [DEVICE_SITE] if file.startswith("kernels/") else [HOST_SITE, POLL_SITE]
    for pattern in patterns:
        for m in pattern.finditer(text):
            before = text[:m.start()].rsplit("\n", 1)[-1]
            if re.search(r"\b(?:return|co_return)\s+$|=\s*$", before):
                continue  # its value is used: not something that could be left out
            new = "(code = cudaSuccess) != cudaSuccess" if pattern is POLL_SITE else "if (false) " + m.group()
            yield Site(file, text.count("\n", 0, m.start()) + 1, m.start(), m.end(), " ".join(m.group().split()), new)


def all_files():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=SOURCE, check=True, capture_output=True, text=True)
    return [f for f in listed.stdout.split("\n") if f and os.path.isfile(os.path.join(SOURCE, f))]


def all_sites():
    found = []
    for file in all_files():
        kernel = file.startswith("kernels/") and file.endswith((".cu", ".cuh")) and not file.endswith("/device.cuh")
        host = file.endswith((".cpp", ".hpp")) and file.startswith(tuple(f"src/{folder}/" for folder in HOST_FOLDERS))
        if kernel or host:
            found += sites_of(file)
    return sorted(found, key=lambda s: (s.file.startswith("src/"), s.file, s.begin))


def plan(site):
    """Names of tests and the builds to run them in, the likeliest to notice first."""
    if site.file.startswith("kernels/"):
        op = re.match(r"(attention|add_norm|cross_entropy|embedding|gather|elementwise|optimizer|relu_mask|\w+)", os.path.basename(site.file)).group()
        op = {"relu_mask": "gemm"}.get(op, op)
        first, second = (PLAIN, RACES) if "copy_async" in site.text else (RACES, PLAIN)
        seeds = [(build, f"kernels/{op}{kind}.seed{seed}") for seed in (1, 2, 3) for build in (first, second) for kind in ("_cuda", "")]
        return seeds
    unit = []
    if site.file.startswith("src/comm/"):
        unit = [f"comm/nccl.np{n}" for n in (1, 2, 4)]
    elif site.file.startswith(("src/core/", "src/train/device_batch")):
        unit = [f"{test}.seed{seed}" for seed in (1, 2, 3) for test in ("core/stream", "train/device_batch")]
    elif site.file.startswith("src/optim/lane_tree"):
        unit = [f"train/data_parallel.np{n}.seed{seed}" for seed in (1, 2, 3) for n in (2, 4)]
    return [(build, test) for build in (PLAIN, RACES) for test in (*unit, "system/cuda")]


def target_of(test):
    return "roformer" if test.startswith("system/") else "test_" + test.split(".")[0].replace("/", "_")


class Tree:
    """The copy, its builds and its tests."""

    def __init__(self, work, limit, jobs):
        self.root, self.limit, self.jobs = os.path.join(work, "tree"), limit, jobs
        self.known = {}

    def update(self):
        """Brings the copy to the sources' state; what is equal keeps its time."""
        for file in all_files():
            here, there = os.path.join(SOURCE, file), os.path.join(self.root, file)
            with open(here, "rb") as f:
                wanted = f.read()
            if os.path.exists(there):
                with open(there, "rb") as f:
                    if f.read() == wanted:
                        continue
            os.makedirs(os.path.dirname(there), exist_ok=True)
            shutil.copyfile(here, there)
            shutil.copymode(here, there)
            if os.path.basename(file) == "CMakeLists.txt":
                os.utime(os.path.join(self.root, "CMakeLists.txt"))  # ninja configures anew, also where a folder is new

    def write(self, file, text):
        with open(os.path.join(self.root, file), "w", encoding="utf-8") as f:
            f.write(text)

    def folder(self, build):
        return os.path.join(self.root, "build", build)

    def build(self, build, test):
        """None, or what the compiler said."""
        if not os.path.exists(os.path.join(self.folder(build), "build.ninja")):
            subprocess.run(["cmake", "--preset", build], cwd=self.root, check=True, stdout=subprocess.DEVNULL)
        done = subprocess.run(["ninja", f"-j{self.jobs}", "-C", self.folder(build), target_of(test)], capture_output=True, text=True)
        return None if done.returncode == 0 else done.stdout + done.stderr

    def command(self, build, test):
        if (build, test) not in self.known:
            text = subprocess.run(["ctest", "--test-dir", self.folder(build), "--show-only=json-v1"], check=True, capture_output=True, text=True).stdout
            for t in json.loads(text)["tests"]:
                if "command" in t:
                    self.known[build, t["name"]] = (t["command"], {p["name"]: p["value"] for p in t["properties"]})
        return self.known.get((build, test))

    def run(self, build, test):
        """(passed, first line of the report); not done in time: (None, ...). A failure is not waited out."""
        command, properties = self.command(build, test)
        env = {**os.environ, "RF_EMULATOR_PATIENCE": "20", "OMP_NUM_THREADS": "1", **dict(e.split("=", 1) for e in properties["ENVIRONMENT"])}
        child = subprocess.Popen(command, cwd=properties["WORKING_DIRECTORY"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, start_new_session=True)
        ended = []

        def end(why):
            ended.append(why)
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)

        timer = threading.Timer(self.limit, end, ["late"])
        timer.start()
        text, failing = "", False
        for raw in child.stdout:
            line = raw.decode("utf-8", "replace")
            text += line
            failing |= line.startswith("FAIL ")  # of a system test, which goes on with the next
            if not ended and (failing and "Error: " in line):
                end("failed")
        child.wait()
        timer.cancel()
        if "late" in ended:
            return None, f"not done after {self.limit} s"
        return not ended and child.returncode in (0, properties.get("SKIP_RETURN_CODE")), report_in(text)


def report_in(text):
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).strip() for line in text.split("\n")]
    for words in ("emulator: ", "error: in ", "Error", "error"):
        for line in lines:
            if words in line:
                return line[line.index("emulator: "):] if "emulator: " in line else re.sub(r"(?<!\w)[\w.]*/\S*/", "", line)
    return next((line for line in lines if line), "no output")


def covered_by(site, tests):
    """A digest of what the answer depends on."""
    digest = hashlib.sha1()
    sources = {site.file} if site else {f for f in all_files() if f.startswith(("kernels/", "src/"))}
    sources |= {f"tests/{test.split('.')[0]}_test.{'py' if test.startswith('system/') else 'cpp'}" for _, test in tests}
    for file in all_files():
        if file in sources or (file.startswith("tests/emulator/") and not file.endswith((".md", "_test.cpp"))):
            with open(os.path.join(SOURCE, file), "rb") as f:
                digest.update(f.read())
    return digest.hexdigest()


def try_site(tree, site, tests):
    with open(os.path.join(SOURCE, site.file), encoding="utf-8") as f:
        text = f.read()
    late = 0
    for build, test in tests:
        tree.write(site.file, text[:site.begin] + site.replacement + text[site.end:])
        try:
            failure = tree.build(build, test)
            if failure:
                sys.exit(f"{site.place} does not compile without {site.text}:\n{failure}")
            if tree.command(build, test) is None:
                sys.exit(f"no test {test} in {build}: the table of tests in mutate.py is out of date")
            passed, report = tree.run(build, test)
        finally:
            tree.write(site.file, text)
        if passed is None:
            late += 1
        elif not passed:
            return {"caught": [build, test], "report": report}
    return {"caught": None, "report": f"{len(tests) - late} runs pass, {late} were not done in time"}


def check_witnesses(tree, results, sites, record):
    """Tests that caught something must pass with everything in place, or they prove nothing."""
    witnesses = {tuple(r["caught"]) for s in sites if (r := results.get((s.place, s.text))) and r["caught"]}
    for build, test in sorted(witnesses):
        row = {"place": test, "text": build, "digest": covered_by(None, [(build, test)])}
        if results.get((test, build), {}).get("digest") == row["digest"]:
            continue
        failure = tree.build(build, test)
        passed, report = (False, failure) if failure else tree.run(build, test)
        if passed is None:
            sys.exit(f"{test} takes longer in {build} than --limit allows: {report}")
        if not passed:
            sys.exit(f"{test} fails in {build} with everything in place, so what it caught does not count: {report}")
        record({**row, "caught": None, "report": "passes with everything in place"})
        print(f"{test} ({build}) passes with everything in place", flush=True)


def named(caught):
    return f"{caught[1]} ({caught[0]})" if caught else "SURVIVED"


def table(results, sites, everything):
    print("| site | taken out | caught by | report |\n| --- | --- | --- | --- |")
    counts = [0, 0, 0, 0]
    for site in sites:
        found = results.get((site.place, site.text))
        if reason := EXPLAINED.get((site.file, site.text)):
            counts[3] += 1
            print(f"| `{site.place}` | `{site.text}` | explained | {reason} |")
            continue
        counts[0 if found is None else 1 if found["caught"] else 2] += 1
        if found and (everything or not found["caught"]):
            print(f"| `{site.place}` | `{site.text}` | {named(found['caught'])} | {found['report'].replace('|', '/')[:160]} |")
    print(f"\n{len(sites)} sites: {counts[1]} caught, {counts[2]} survived, {counts[3]} explained, {counts[0]} not tried")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the sites and end")
    parser.add_argument("--table", action="store_true", help="print the results so far and end")
    parser.add_argument("--survivors", action="store_true", help="of the table only what survived")
    parser.add_argument("--only", default="", metavar="REGEX", help="sites whose \"file:line text\" matches")
    parser.add_argument("--work", default=os.path.join(SOURCE, "build", "mutation"), metavar="FOLDER", help="of the copy and the results (build/mutation)")
    parser.add_argument("--jobs", type=int, default=2, help="of the builds (2)")
    parser.add_argument("--limit", type=int, default=300, help="seconds a test may take (300)")
    options = parser.parse_args()
    sites = [s for s in all_sites() if re.search(options.only, f"{s.place} {s.text}")]
    if options.list:
        for s in sites:
            print(f"{s.place}  {s.text}")
        return
    os.makedirs(options.work, exist_ok=True)
    journal = os.path.join(options.work, "results.jsonl")
    results = {}
    if os.path.exists(journal):
        with open(journal, encoding="utf-8") as f:
            for line in f:
                row = json.loads(line)
                results[row["place"], row["text"]] = row
    def record(row):
        results[row["place"], row["text"]] = row
        with open(journal, "a", encoding="utf-8") as f:
            f.write(json.dumps(row) + "\n")

    if not options.table:
        tree = Tree(options.work, options.limit, options.jobs)
        tree.update()
        for number, site in enumerate(sites, 1):
            if (site.file, site.text) in EXPLAINED:
                continue
            tests = plan(site)
            digest = covered_by(site, tests)
            if results.get((site.place, site.text), {}).get("digest") == digest:
                continue
            begin = time.time()
            row = {"place": site.place, "text": site.text, "digest": digest, **try_site(tree, site, tests), "seconds": round(time.time() - begin)}
            record(row)
            print(f"{number}/{len(sites)} {site.place} {site.text}: {named(row['caught'])}: {row['report'][:120]} ({row['seconds']} s)", flush=True)
        check_witnesses(tree, results, sites, record)
    table(results, sites, everything=not options.survivors)
    sys.exit(any(not r["caught"] for s in sites if (r := results.get((s.place, s.text)))))


if __name__ == "__main__":
    main()

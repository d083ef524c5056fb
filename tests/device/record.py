"""One record of everything that needs a GPU: part by part, each in processes of its own with a time limit of its own; what fails is
recorded and the rest goes on. Writes OUTPUT/record.h5 and OUTPUT/record.txt. run.sh starts it."""

import argparse
import concurrent.futures
import csv
import functools
import glob
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import threading
import time

import h5py

TOKENS = 32768  # of a lane: what fills an H100 and leaves room for large
SEQUENCES = 512  # of an update, as in the recipe

FEW_THREADS = {"OMP_NUM_THREADS": "4"}

# Dense bf16 rate of the data sheet, FLOP/s, and memory, bytes/s. NVIDIA's data sheets of these boards.
PEAKS = {"H100 80GB HBM3": (989.4e12, 3.35e12), "H200": (989.4e12, 4.8e12), "A100": (312e12, 2.04e12), "B200": (2250e12, 8.0e12)}

METRICS = ("gpu__time_duration.sum", "dram__bytes_read.sum", "dram__bytes_write.sum", "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed")
LAUNCHES = 1600  # more than two updates of large have, so that one is whole

# What the project set itself for one H100: row, what, unit, goal, further goal.
TARGETS = {
    "M1": ("large, 512 tokens, dense", "sequences/s", 515, 555),
    "M2": ("large, 128 tokens, dense", "sequences/s", 2100, 2370),
    "M3": ("large, mixed lengths to 512", "sequences/s", 1050, None),
    "M3 rate": ("real tokens/s, mixed over dense", "1", 0.97, None),
    "M5 forward": ("attention, S = 512, D = 64, with dropout", "TFLOP/s", 340, None),
    "M5 both": ("attention forward and backward", "TFLOP/s", 300, None),
    "M6": ("slowest large row kernel, of the measured copy", "1", 0.9, None),
    "M10": ("start to first update, large", "s", 5, None),
    "P1": ("PyTorch's time over ours, large, 512 tokens", "1", 1, None),
}
# Bound by memory and big enough at large to be held to M6.
ROW_KERNELS = ("add_norm", "add_norm_backward", "softmax_stats", "cross_entropy_backward", "gradient_sums", "update_moments", "apply_update")


class Table(dict):
    """Columns of equal length: name -> (unit, list)."""

    def add(self, **row):
        """A key is column__unit, or the column's name alone."""
        length = max((len(values) for _, values in self.values()), default=0)
        for key, value in row.items():
            name, _, unit = key.partition("__")
            self.setdefault(name, (unit.replace("_per_", "/") or "1", [None] * length))[1].append(value)
        for _, values in self.values():
            values += [None] * (length + 1 - len(values))


def write_h5(path, meta, tables):
    """Tables of one-dimensional columns, which pandas reads as they are; absent numbers are NaN."""
    with h5py.File(path, "w") as file:
        for name, value in meta.items():
            file.attrs[name] = value
        for name, table in tables.items():
            group = file.create_group(name)
            for column, (unit, values) in table.items():
                if any(isinstance(v, str) for v in values):
                    data = group.create_dataset(column, data=["" if v is None else str(v) for v in values], dtype=h5py.string_dtype())
                else:
                    data = group.create_dataset(column, data=[float("nan") if v is None else float(v) for v in values])
                data.attrs["units"] = unit


def shown(value):
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def text_table(table):
    names = list(table)
    lines = ["| " + " | ".join(f"{n}, {table[n][0]}" if table[n][0] != "1" else n for n in names) + " |", "|" + " --- |" * len(names)]
    for row in zip(*(table[n][1] for n in names)):
        lines.append("| " + " | ".join(shown(v) for v in row) + " |")
    return "\n".join(lines) + "\n"


class GpuMemory(threading.Thread):
    """The most memory the GPU had in use during a block, less what it had before, as the driver says; None where it says nothing."""

    def __enter__(self):
        self.peak = self.before = self.now()
        self.stop = threading.Event()
        if self.before is not None:
            self.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        if self.before is not None:
            self.join()

    def run(self):
        while not self.stop.wait(0.2):
            self.peak = max(self.peak, self.now() or 0)

    def used(self):
        return None if self.before is None else self.peak - self.before

    @staticmethod
    def now():
        if not shutil.which("nvidia-smi"):
            return None
        done = subprocess.run(["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], stdout=subprocess.PIPE, text=True)
        return int(done.stdout) << 20 if done.returncode == 0 and done.stdout.strip().isdigit() else None


class Failed(Exception):
    pass


class Record:
    def __init__(self, a):
        self.package, self.output, self.device, self.small = a.package.resolve(), a.output.resolve(), a.device, a.small
        self.output.mkdir(parents=True, exist_ok=True)
        self.end = time.monotonic() + 60 * a.minutes
        self.meta, self.tables, self.found = {}, {}, {}
        self.parts = Table()
        self.roformer = self.package / "bin/roformer"
        for line in (self.package / "build.txt").read_text().splitlines():
            key, _, value = line.partition(": ")
            self.meta[f"build {key}"] = value
        self.meta["begun"] = time.strftime("%Y-%m-%d %H:%M:%S %Z")
        self.link_cuda()

    def link_cuda(self):
        """Programs look for libraries beside themselves: CUDA's are linked there from where this machine has them."""
        for name in ("libcudart.so.13", "libcublasLt.so.13", "libnccl.so.2"):
            link = self.package / "lib" / name
            if link.exists():
                continue
            link.unlink(missing_ok=True)
            places = [f"/usr/local/cuda*/lib64/{name}", "/usr/local/cuda*/targets/x86_64-linux/lib/" + name, f"/usr/lib/x86_64-linux-gnu/{name}",
                      *(f"{path}/nvidia/**/lib/{name}" for path in sys.path if path)]
            here = next((found for pattern in places for found in sorted(glob.glob(pattern, recursive=True), reverse=True)), None)
            if not here:
                sys.exit(f"{name} is on this machine in no place of {places}: the programs need CUDA 13's runtime, cuBLASLt and NCCL 2")
            link.symlink_to(here)
            self.meta[name] = here

    def run(self, command, seconds, log, env=None, accept=(0,)):
        """Output of a process, kept in OUTPUT/log; Failed where it ends badly or late."""
        seconds = min(seconds, self.end - time.monotonic())
        if seconds < 5:
            raise Failed("no time left")
        path = self.output / log
        with open(path, "w", encoding="utf-8", errors="replace") as out:
            process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}, cwd=self.output,
                                       start_new_session=True)
            try:
                code = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, 9)
                    process.wait()
        text = path.read_text(encoding="utf-8", errors="replace")
        if code is None:
            raise Failed(f"not done after {seconds:.0f} s")
        if code not in accept:
            last = [line for line in text.strip().splitlines() if line.strip()][-1:] or ["no output"]
            raise Failed(f"exit code {code}: {last[0][:300]}")
        return code, text

    @staticmethod
    def attempt(name, work):
        """What `work` returns, or why it did not, as a row."""
        begin = time.monotonic()
        try:
            row, status = work(), "ok"
        except Failed as e:
            row, status = {}, str(e)
        seconds = time.monotonic() - begin
        print(f"  {name}: {status} ({seconds:.1f} s) {' '.join(f'{k.partition(chr(95) * 2)[0]} {shown(v)}' for k, v in row.items())}", flush=True)
        return {"name": name, "status": row.pop("status", status), "seconds__s": seconds, **row}

    def each(self, table, name, work):
        """Adds the row; None where it failed."""
        row = self.attempt(name, work)
        table.add(**row)
        return row if row["status"] == "ok" else None

    def together(self, table, jobs):
        """Rows of many small processes whose speed does not matter, four at a time. jobs: (name, work)."""
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for row in pool.map(lambda job: self.attempt(*job), jobs):
                table.add(**row)

    # --- parts ---

    def part_machine(self):
        if shutil.which("nvidia-smi"):
            _, text = self.run(["nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm", "--format=csv,noheader"], 30, "nvidia-smi.txt")
            self.meta["gpus"] = text.strip()
        self.meta["processors"] = f"{len(os.sched_getaffinity(0))} cores"
        if self.device == "cpu":
            raise Failed("the ceilings of a GPU need one")
        _, text = self.run([sys.executable, self.package / "device/ceilings.py"], 90, "ceilings.txt")
        self.found["ceilings"] = json.loads(text.splitlines()[-1])
        self.meta.update(self.found["ceilings"])

    def test_programs(self):
        return sorted(path for path in (self.package / "bin").iterdir() if path.name.startswith("test_"))

    def part_tests(self):
        def work(program):
            code, text = self.run([program, "--log_level=error"], 120, f"{program.name}.txt", env=FEW_THREADS, accept=(0, 77))
            cases = re.search(r"Running (\d+) test case", text)
            return {"cases": int(cases.group(1)) if cases else 0, "status": "ok" if code == 0 else "skipped"}
        self.tables["tests"] = Table()
        self.together(self.tables["tests"], [(program.name, functools.partial(work, program)) for program in self.test_programs()])

    def part_sanitize(self):
        if not shutil.which("compute-sanitizer"):
            raise Failed("compute-sanitizer is not on this machine")

        def work(tool, program):
            _, text = self.run(["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", program], 240, f"{tool}.{program.name}.txt", env=FEW_THREADS,
                               accept=(0, 9, 77))
            summary = re.findall(r"SUMMARY: (\d+) .*", text)
            if summary != ["0"]:
                raise Failed(next(iter(re.findall(r"SUMMARY: .*", text)), "no summary"))
            return {}
        self.tables["sanitize"] = Table()
        self.together(self.tables["sanitize"], [(f"{tool} {program.name}", functools.partial(work, tool, program))
                                                for tool in ("memcheck", "racecheck", "initcheck") for program in self.test_programs()])

    def corpus(self):
        """Documents of mixed lengths, made here: a fifth reach 512 tokens, the others are even over the lengths to 360; mean 254, near
        the lengths of an encyclopedia."""
        folder = self.output / "corpus"
        if not (folder / "corpus.json").exists():
            rng = random.Random(1)
            characters = [chr(0x4E00 + i) for i in range(3000)]
            documents = 400 if self.small else 12 * SEQUENCES
            with open(self.output / "text.txt", "w", encoding="utf-8") as out:
                for _ in range(documents):
                    out.write("".join(rng.choices(characters, k=510 if rng.random() < 0.22 else rng.randint(4, 358))) + "\n")
            for command, settings in (("build-vocab", {"text": "text.txt", "output": "vocab.txt", "size": 4000}),
                                      ("build-corpus", {"text": "text.txt", "vocab": "vocab.txt", "output": "corpus", "segmenter.name": "none"})):
                self.run([self.roformer, command, *self.sets(settings)], 60, f"{command}.txt")
        return folder

    @staticmethod
    def sets(settings):
        return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]

    def shape(self, model, length):
        """Sequences of an update and its lanes."""
        sequences = 4 if self.small else SEQUENCES
        return sequences, max(1, sequences * length // TOKENS)

    def settings(self, model, length, corpus=None):
        sequences, lanes = self.shape(model, length)
        return {"model": self.package / f"inputs/model/{model}.json", "device": self.device, "dtype": "bf16" if self.device == "cuda" else "f32",
                "batch.sequences": sequences, "batch.max_length": length, "batch.lanes": lanes, **({"corpus": corpus} if corpus else {})}

    def bench_rows(self):
        for model in ("tiny",) if self.small else ("large", "base", "small"):
            for length in (512, 128):
                for kind in ("dense", "mixed"):
                    yield model, length, kind

    def part_bench(self):
        table = self.tables["bench"] = Table()
        for model, length, kind in self.bench_rows():
            def work():
                settings = self.settings(model, length, self.corpus() if kind == "mixed" else None)
                output = self.output / f"bench.{model}.{length}.{kind}.h5"
                with GpuMemory() as memory:
                    self.run([self.roformer, "bench", *self.sets({**settings, "steps": 2 if self.small else 8, "output": output})], 120,
                             f"bench.{model}.{length}.{kind}.txt")
                with h5py.File(output) as file:
                    value = lambda column: float(file["bench"][column][-1])  # the last row is this measurement
                    sequences, lanes = self.shape(model, length)
                    peak = self.peak()
                    return {"model": model, "length__tokens": length, "lengths": kind, "lanes": lanes, "step__s": value("seconds_per_step"),
                            "sequences__1_per_s": sequences / value("seconds_per_step"), "tokens__1_per_s": value("tokens_per_second"),
                            "flops__TFLOP_per_s": value("flops_per_second") * 1e-12,
                            "of_data_sheet": value("flops_per_second") / peak[0] if peak else None, "of_own_products": value("peak_fraction"),
                            **{f"{p}__s": value(f"seconds_{p}") for p in ("forward", "backward", "lane_sums", "optimizer")},
                            "memory__GiB": None if memory.used() is None else memory.used() / 2**30}
            row = self.each(table, f"{model} {length} {kind}", work)
            if row:
                self.found[model, length, kind] = row
        self.each(table, "start", self.start)

    def start(self):
        """From the program's start to the end of the first update of large: its own words."""
        model = "tiny" if self.small else "large"
        settings = self.settings(model, 128, self.corpus())
        settings |= {"batch.sequences": 4 if self.small else 64, "batch.lanes": 1, "vocab": "vocab.txt", "output": "start", "steps": 1, "evaluation.documents": 0}
        _, text = self.run([self.roformer, "pretrain", *self.sets(settings)], 90, "start.txt")
        match = re.search(r"first update after ([\d.]+) s;", text)
        if not match:
            raise Failed("the log names no first update")
        self.found["start"] = float(match.group(1))
        return {"step__s": self.found["start"]}

    def peak(self):
        gpu = self.meta.get("gpus", "")
        return next((value for name, value in PEAKS.items() if name in gpu), None)

    def part_kernels(self):
        """Every kernel of one update of large, 64 x 512, one by one in the profiler, without graphs and with the clocks as they are."""
        if not shutil.which("ncu"):
            raise Failed("ncu is not on this machine")
        settings = self.settings("large", 512) | {"batch.sequences": 64, "batch.lanes": 1, "steps": 1, "parallel.graphs": "false", "output": "kernels.h5"}
        for metrics in (METRICS, METRICS[:3]):  # not every GPU has a counter of that name for its tensor cores
            _, text = self.run(["ncu", "--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none", "--launch-count", LAUNCHES, "--kill", "yes",
                                "--metrics", ",".join(metrics), self.roformer, "bench", *self.sets(settings)], 200, "ncu.txt", accept=(0, 1, 9, 137, 255))
            if "Failed to find metric" not in text:
                break
        rows = whole_update(profiled(text))
        peak, ceilings = self.peak(), self.found.get("ceilings", {})
        table = self.tables["kernels"] = Table()
        total = sum(r["seconds"] for r in rows)
        for name, group in sorted(by_name(rows).items(), key=lambda item: -sum(r["seconds"] for r in item[1])):
            seconds, moved = sum(r["seconds"] for r in group), sum(r["bytes"] for r in group)
            table.add(kernel=name, calls=len(group), time__ms=1e3 * seconds, share=seconds / total, each__us=1e6 * seconds / len(group),
                      bandwidth__GB_per_s=moved / seconds * 1e-9, of_copy=moved / seconds / ceilings["copy_bytes_per_second"] if ceilings else None,
                      of_memory=moved / seconds / peak[1] if peak else None, tensor_pipe=sum(r["tensor"] * r["seconds"] for r in group) / seconds / 100)
        self.found["kernels"] = {name: {"seconds": sum(r["seconds"] for r in group) / len(group), "rate": sum(r["bytes"] for r in group) / sum(r["seconds"] for r in group)}
                                 for name, group in by_name(rows).items()}

    def part_peers(self):
        """PyTorch's step and ours by turns."""
        table = self.tables["peers"] = Table()
        for model, length in (("tiny", 32),) if self.small else (("large", 512), ("large", 128), ("base", 512), ("small", 128)):
            def work():
                folder = self.output / f"peers.{model}.{length}"
                folder.mkdir(exist_ok=True)
                sequences, lanes = self.shape(model, length)
                with GpuMemory() as memory:
                    self.run([sys.executable, self.package / "peers/run.py", "--folder", folder, "--rounds", 2, "--steps", 4, "--model",
                              self.package / f"inputs/model/{model}.json", "--sequences", sequences, "--lanes", lanes, "--length", length, "--roformer", self.roformer,
                              "--device", self.device, "--patience", 150], 400, f"peers.{model}.{length}.txt")
                with h5py.File(folder / "peers.h5") as file:
                    middle = lambda column: sorted(file["peers"][column][:])[len(file["peers"][column]) // 2]
                    result = {"model": model, "length__tokens": length, "ours__s": middle("seconds"), "peer__s": middle("peer_seconds"), "ratio": middle("ratio"),
                              "peer": file.attrs["peer"], "larger_memory__GiB": None if memory.used() is None else memory.used() / 2**30}
                return result
            row = self.each(table, f"{model} {length}", work)
            if row and (model, length) == ("large", 512):
                self.found["peer"] = row["ratio"]

    def part_families(self):
        """RoBERTa and RoFormerV2 by turns, and the switches: rows for postprocess/compare_speed.py, beside those of a CPU."""
        if self.small:
            settings = {"sizes": "tiny", "lengths": "32", "switches": "none", "tokens": 64, "rounds": 2, "steps": 1}
        else:
            settings = {"sizes": "base large", "lengths": "128 512", "switches": "base:128", "tokens": TOKENS, "rounds": 7, "steps": 4}
        folder = self.output / "families"
        options = [word for name, value in {**settings, "device": self.device, "output": folder}.items() for word in (f"--{name}", value)]
        self.run([sys.executable, self.package / "jobs/compare_speed.py", *options, "--no-page"], 540, "families.txt", env={"ROFORMER": str(self.roformer)})
        found = {}
        with h5py.File(folder / "bench.h5") as file:
            for label, rate in zip(file["bench/label"].asstr()[:], file["bench/tokens_per_second"][:]):
                label = json.loads(label.removeprefix("compare_speed "))
                found.setdefault((label["compare"], label["size"], label["length"]), {}).setdefault(label["arm"], []).append(float(rate))
        table = self.tables["families"] = Table()
        for (compare, size, length), arms in found.items():
            base = arms["roberta" if compare == "families" else "roformer_v2"]
            for arm, rates in arms.items():
                ratios = sorted(mine / theirs for mine, theirs in zip(rates, base))
                table.add(compare=compare, model=size, length__tokens=length, arm=arm, rounds=len(rates), tokens__1_per_s=sorted(rates)[len(rates) // 2],
                          ratio=ratios[len(ratios) // 2], least=ratios[0], greatest=ratios[-1])

    # --- the end ---

    def compare(self):
        """Goals beside what was found in this run."""
        values = {}
        rate = lambda *key: self.found.get(key, {}).get("sequences__1_per_s")
        values["M1"], values["M2"], values["M3"] = rate("large", 512, "dense"), rate("large", 128, "dense"), rate("large", 512, "mixed")
        if values["M1"] and values["M3"]:
            values["M3 rate"] = self.found["large", 512, "mixed"]["tokens__1_per_s"] / self.found["large", 512, "dense"]["tokens__1_per_s"]
        kernels = self.found.get("kernels", {})
        if "attention_tensor" in kernels:
            # Two products forward; five backward, however many the kernels make. 64 x 512 tokens, C = 1024.
            forward = 4.0 * 512 * 64 * 512 * 1024
            values["M5 forward"] = forward / kernels["attention_tensor"]["seconds"] * 1e-12
            if "attention_query_gradient" in kernels and "attention_key_gradient" in kernels:
                both = sum(kernels[k]["seconds"] for k in ("attention_tensor", "attention_query_gradient", "attention_key_gradient"))
                values["M5 both"] = 3.5 * forward / both * 1e-12
        rates = [kernels[k]["rate"] for k in ROW_KERNELS if k in kernels]
        if rates and "ceilings" in self.found:
            values["M6"] = min(rates) / self.found["ceilings"]["copy_bytes_per_second"]
        values["M10"], values["P1"] = self.found.get("start"), self.found.get("peer")
        table = self.tables["goals"] = Table()
        for row, (what, unit, goal, further) in TARGETS.items():
            value = values.get(row)
            met = "" if value is None else "yes" if (value <= goal if row == "M10" else value >= goal) else "no"
            table.add(row=row, what=what, unit=unit, found=value, goal=goal, further=further, met=met)

    def write(self):
        self.compare()
        tables = {"parts": self.parts, **self.tables}
        write_h5(self.output / "record.h5", self.meta, tables)
        text = "\n".join(f"{key}: {value}" for key, value in self.meta.items()) + "\n"
        for name, table in tables.items():
            text += f"\n{name}\n\n{text_table(table)}" if table else ""
        (self.output / "record.txt").write_text(text, encoding="utf-8")
        return text


def profiled(text):
    """Rows of ncu's raw CSV: kernel, seconds, bytes, share of tensor cycles in per cent."""
    lines = text.splitlines()
    begin = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if begin is None:
        raise Failed(f"ncu printed no table: {next((line for line in lines if 'ERROR' in line), lines[-1] if lines else 'no output')[:300]}")
    table = csv.DictReader([lines[begin], *(line for line in lines[begin + 1:] if line.startswith('"'))])
    rows = []
    for row in table:
        if not row["ID"].strip():
            continue  # the row of units
        number = lambda key: float((row.get(key) or "0").replace(",", "") or 0)
        rows.append({"name": short_name(row["Kernel Name"]), "seconds": number("gpu__time_duration.sum") / 1e9,
                     "bytes": number("dram__bytes_read.sum") + number("dram__bytes_write.sum"),
                     "tensor": number("sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed")})
    return rows


def short_name(text):
    match = re.search(r"(\w+)_kernel\b", text)
    return match.group(1) if match else re.sub(r"[<(].*", "", text.replace("void ", "")).strip()


def by_name(rows):
    groups = {}
    for row in rows:
        groups.setdefault(row["name"], []).append(row)
    return groups


def whole_update(rows):
    """From one judgement of a gradient, of which an update has one, to the next."""
    ends = [i for i, row in enumerate(rows) if row["name"] == "judge_gradient"]
    if len(ends) < 2:
        raise Failed(f"{len(rows)} kernels were profiled and hold no whole update")
    return rows[ends[0] + 1:ends[1] + 1]


PARTS = ("machine", "tests", "bench", "kernels", "peers", "families", "sanitize")


def main():
    parser = argparse.ArgumentParser(prog="run.sh")
    parser.add_argument("output", type=pathlib.Path, help="folder of the record")
    parser.add_argument("--package", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)} (all)")
    parser.add_argument("--minutes", type=float, default=9.5, help="what is not begun by then is recorded as not run")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal")
    parser.add_argument("--small", action="store_true", help="a tiny model and few tokens: a rehearsal")
    a = parser.parse_args()
    wanted = a.parts.split(",")
    if unknown := [part for part in wanted if part not in PARTS]:
        parser.error(f"--parts: {', '.join(unknown)}: known are {', '.join(PARTS)}")
    record = Record(a)
    for part in PARTS:
        if part not in wanted:
            continue
        print(part, flush=True)
        record.each(record.parts, part, lambda: getattr(record, f"part_{part}")() or {})
        record.write()  # what is there survives whatever comes
    print(record.write())
    # A part that could not run, a row that failed: the record says which; the exit code says that there was one.
    failed = any(s not in ("ok", "skipped") for t in record.tables.values() for s in t.get("status", ("", []))[1]) or any(s != "ok" for s in record.parts["status"][1])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

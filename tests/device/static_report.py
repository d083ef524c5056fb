#!/usr/bin/python3
"""What the compiler made of every kernel, for every architecture, without a GPU: registers, local memory, shared memory, occupancy,
widths of global accesses, matrix instructions, asynchronous copies, barriers. Writes FOLDER/static_report.txt and .json and
fails where a kernel breaks a rule below. cuobjdump comes from the toolkit, or from its Python package into FOLDER/sass_tools.

    static_report.py FOLDER [--program FOLDER/roformer] [--shared FOLDER/shared_sizes]
"""

import argparse
import collections
import json
import pathlib
import re
import shutil
import subprocess
import sys

SKIP = 77

# Rows move 16 bytes an access when they are whole packs; template arguments say so where an instance is for one of the two only.
WIDE_LOADS_AND_STORES = ("add", "add_scaled", "cast", "add_norm", "add_norm_backward", "embedding", "gather", "gather_backward", "cross_entropy_backward",
                         "embedding_pieces", "embedding_join", "segment_blocks", "segment_join", "relu_to_mask", "relu_by_mask",
                         "update_moments", "apply_update", "adafactor_moments", "apply_adafactor", "layer_norm", "layer_norm_backward", "bias_activation", "activation_backward",
                         "add_position", "add_position_backward")
WIDE_LOADS = ("softmax_stats", "gradient_sums")  # they write a few numbers a row or a segment
TENSOR = ("attention_tensor", "attention_query_gradient", "attention_key_gradient")
# Why no 16-byte accesses are asked for.
NARROW = {
    "attention_plain": "turns pairs into f32 rows; for f32 and odd head sizes, bound by arithmetic",
    "attention_plain_gradient": "as attention_plain",
    "add_norm_alpha": "one number a token, one block",
    "join_softmax_stats": "four numbers a row and rank",
    "cross_entropy_sums": "one block, a few numbers a row",
    "join_sums": "one block a group",
    "judge_gradient": "one block",
    "update_rates": "one number a group",
    "adafactor_rates": "one number a group",
    "add_bias": "outputs of a task's head: a few numbers a sequence",
    "add_bias_backward": "as add_bias; of a dense product: a lane a column, whole sectors",
    "layer_norm_columns": "a lane a column, whole sectors",
    "score_loss": "one number a sequence",
    "vectors": "turns pairs of channels; rows of a head's size",
    "vectors_backward": "as vectors",
    "pair_rows": "a vector stays in registers; bound by arithmetic",
    "pair_vectors_gradient": "as pair_rows",
    "pair_bias_gradient": "as pair_rows",
    "pair_cells": "as pair_rows",
    "pair_stats": "four numbers a sequence and type",
    "pair_sums": "as pair_stats",
}
# Which template argument (from 0) says that rows are whole packs.
WHOLE_ARGUMENT = {"add_norm": 2, "add_norm_backward": 2, "embedding": 1, "embedding_pieces": 1, "embedding_join": 1, "segment_blocks": 1,
                  "segment_join": 1, "layer_norm": 2, "layer_norm_backward": 2, "bias_activation": 1, "activation_backward": 1, "add_position": 1, "add_position_backward": 1, "gather": 1, "gather_backward": 1, "cross_entropy_backward": 1, "softmax_stats": 0}

# Per multiprocessor: registers, warps, blocks, bytes of shared memory, bytes a block may have (CUDA C++ Programming Guide, compute
# capabilities). Registers go to warps 256 at a time from one quarter of the file; a block takes 1 KiB of shared memory more.
LIMITS = {"80": (65536, 64, 32, 164 << 10, 163 << 10), "90": (65536, 64, 32, 228 << 10, 227 << 10), "100": (65536, 64, 32, 228 << 10, 227 << 10)}


def find_cuobjdump(folder):
    """Its path; None where it is neither installed nor to be had."""
    for name in ("cuobjdump", "/usr/local/cuda/bin/cuobjdump"):
        if found := shutil.which(name):
            return found
    environment = folder / "sass_tools"
    for attempt in range(2):
        for found in environment.glob("lib/python*/site-packages/nvidia/**/cuobjdump"):
            found.chmod(0o755)
            return str(found)
        if attempt == 0:
            print(f"cuobjdump: not in the toolkit, taken from its Python package into {environment}", flush=True)
            if subprocess.run([sys.executable, "-m", "venv", environment]).returncode == 0:
                subprocess.run([environment / "bin/python", "-m", "pip", "install", "--quiet", "nvidia-cuda-cuobjdump", "nvidia-cuda-nvdisasm"])
    return None


def dump(tool, program, *words):
    disassembler = next(iter(pathlib.Path(tool).parent.glob("nvdisasm")), None)
    path = f"{disassembler.parent}:/usr/bin:/bin" if disassembler else None
    environment = {"PATH": path} if path else None
    done = subprocess.run([tool, *words, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{tool} {' '.join(words)} {program}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def short_names(mangled):
    """{mangled: (base, [template arguments])} of kernels."""
    names = sorted(mangled)
    plain = subprocess.run(["c++filt"], input="\n".join(names), stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    result = {}
    for name, text in zip(names, plain):
        match = re.search(r"(\w+)_kernel(?:<(.*?)>)?\(", text.replace("(anonymous namespace)::", "").replace("(bool)", "").replace("(int)", ""))
        if not match:
            sys.exit(f"{text}: kernels are named <op>_kernel")
        arguments = [a.strip().replace("rf::bfloat16", "bf16").replace("float", "f32") for a in (match.group(2) or "").split(",") if a.strip()]
        result[name] = (match.group(1), [{"1": a, "true": "1", "false": "0"}.get(a, a) for a in arguments])
    return result


def resources(tool, program):
    """{(architecture, mangled): {registers, stack, local, shared}}."""
    result, architecture, function = {}, None, None
    for line in dump(tool, program, "-res-usage").splitlines():
        if match := re.match(r"\s*arch = sm_(\w+)", line):
            architecture = match.group(1)
        elif match := re.match(r"\s*Function (\S+):", line):
            function = match.group(1)
        elif function and "REG:" in line:
            number = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}
            reserved = 1024 if int(re.match(r"\d+", architecture).group(0)) >= 90 and number["SHARED"] >= 1024 else 0  # the system's own KiB is listed there
            result[architecture, function] = {"registers": number["REG"], "stack": number["STACK"], "local": number["LOCAL"], "shared": number["SHARED"] - reserved}
            function = None
    return result


def threads(tool, program):
    """{(architecture, mangled): the most threads a block may have by its launch bounds}."""
    result, architecture, function, waiting = {}, None, None, False
    for line in dump(tool, program, "-elf").splitlines():
        if match := re.match(r"\s*arch = sm_(\w+)", line):
            architecture = match.group(1)
        elif match := re.match(r"\.nv\.info\.(\S+)", line.strip()):
            function = match.group(1)
        elif "EIATTR_MAX_THREADS" in line:
            waiting = True
        elif waiting and (match := re.search(r"Value:\s+(0x[0-9a-f]+|\d+)\s+(0x[0-9a-f]+|\d+)\s+(0x[0-9a-f]+|\d+)", line)):
            x, y, z = (int(n, 0) for n in match.groups())
            result[architecture, function] = x * y * z
            waiting = False
    return result


def instructions(tool, program):
    """{(architecture, mangled): Counter of what the report counts}."""
    result, architecture, counter = {}, None, None
    for line in dump(tool, program, "-sass").splitlines():
        if match := re.match(r"\s*arch = sm_(\w+)", line):
            architecture = match.group(1)
        elif match := re.match(r"\s*Function : (\S+)", line):
            counter = result.setdefault((architecture, match.group(1)), collections.Counter())
        elif counter is not None and (match := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", line)):
            count(counter, match.group(1))
    return result


def count(counter, instruction):
    name, *parts = instruction.split(".")
    counter["instructions"] += 1
    if name in ("LDL", "STL", "HMMA", "HGMMA", "LDSM", "LDGSTS"):
        counter[name] += 1
    elif name == "BAR":
        counter["barriers"] += 1
    elif name in ("LDG", "LD", "STG", "ST"):
        width = next((int(p) for p in parts if p in ("64", "128", "256")), 16 if {"U16", "S16"} & set(parts) else 8 if {"U8", "S8"} & set(parts) else 32)
        counter[f"{'load' if name.startswith('L') else 'store'} {width}"] += 1


def occupancy(architecture, row):
    """Blocks a multiprocessor can hold, and what ends it."""
    registers, warps, blocks, shared, _ = LIMITS[re.match(r"\d+", architecture).group(0)]
    mine = (row["threads"] + 31) // 32
    per_warp = -(-row["registers"] * 32 // 256) * 256
    by = {"blocks": blocks, "threads": warps // mine, "registers": 4 * (registers // 4 // per_warp) // mine,
          "shared": shared // (-(-(row["shared"] + row["dynamic"]) // 128) * 128 + 1024)}
    reason = min(by, key=lambda key: by[key])
    return by[reason], reason


def widths(row, kind):
    found = [(int(key.split()[1]), n) for key, n in row.items() if key.startswith(kind + " ")]
    return " ".join(f"{n}x{width}" for width, n in sorted(found, reverse=True)) or "-"


def broken_rules(row):
    base, arguments = row["base"], row["arguments"]
    where = f"{row['name']} on sm_{row['architecture']}"
    if row["LDL"] or row["STL"] or row["stack"] or row["local"]:
        yield f"{where}: local memory ({row['LDL']} loads, {row['STL']} stores, {row['stack']} bytes of stack): registers are spilled or an array is indexed at run time"
    whole = base not in WHOLE_ARGUMENT or arguments[WHOLE_ARGUMENT[base]] == "1"
    wide = lambda kind: row.get(f"{kind} 128", 0) + row.get(f"{kind} 256", 0)
    if whole and base in WIDE_LOADS_AND_STORES + WIDE_LOADS and not wide("load"):
        yield f"{where}: no 128-bit load (found {row['loads']})"
    if whole and base in WIDE_LOADS_AND_STORES and not wide("store"):
        yield f"{where}: no 128-bit store (found {row['stores']})"
    if base in TENSOR:
        if not row["HMMA"]:
            yield f"{where}: no tensor-core instruction"
        if not row["LDGSTS"]:
            yield f"{where}: no asynchronous copy"
        if not wide("store") or row.get("store 32", 0) > 8:  # eight: the row sums of a thread
            yield f"{where}: rows are not stored 128 bits at a time (found {row['stores']})"
        if row["blocks"] < 2:
            yield f"{where}: {row['blocks']} blocks a multiprocessor, two are needed ({row['bound']})"
    elif base not in WIDE_LOADS_AND_STORES + WIDE_LOADS and base not in NARROW:
        yield f"{where}: this report has no rule for it: add it to one of its lists"


def table(rows):
    head = ("kernel", "sm", "threads", "regs", "stack", "LDL", "STL", "shared", "dynamic", "blocks", "bound by", "warps", "loads", "stores", "LDGSTS", "HMMA", "LDSM", "barriers",
            "instructions")
    lines = [[r["name"], r["architecture"], r["threads"], r["registers"], r["stack"], r["LDL"], r["STL"], r["shared"], r["dynamic"], r["blocks"], r["bound"],
              r["blocks"] * ((r["threads"] + 31) // 32), r["loads"], r["stores"], r["LDGSTS"], r["HMMA"], r["LDSM"], r["barriers"], r["instructions"]] for r in rows]
    cells = [list(map(str, line)) for line in [head, *lines]]
    size = [max(len(line[i]) for line in cells) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(n) for cell, n in zip(line, size)).rstrip() for line in cells) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path, help="the build folder; the report is written here")
    parser.add_argument("--program", type=pathlib.Path)
    parser.add_argument("--shared", type=pathlib.Path)
    a = parser.parse_args()
    program, shared = a.program or a.folder / "roformer", a.shared or a.folder / "shared_sizes"
    tool = find_cuobjdump(a.folder)
    if not tool:
        print("skipped: cuobjdump is neither in the toolkit nor could its Python package be installed")
        sys.exit(SKIP)
    # Dynamic shared memory is an argument of the launch and stands in no binary: the structs' sizes come from a program of the build.
    dynamic = {}
    for line in subprocess.run([shared], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines():
        base, argument, size = line.split()
        dynamic[base, argument] = int(size)
    usage, bounds, counts = resources(tool, program), threads(tool, program), instructions(tool, program)
    names = short_names({function for _, function in counts})
    rows = []
    for (architecture, function), counter in sorted(counts.items(), key=lambda item: (names[item[0][1]], int(re.match(r"\d+", item[0][0]).group(0)))):
        base, arguments = names[function]
        row = {"name": base + (f"<{', '.join(arguments)}>" if arguments else ""), "base": base, "arguments": arguments, "architecture": architecture,
               **usage[architecture, function], "threads": bounds.get((architecture, function), 1024),
               "dynamic": next((size for (b, x), size in dynamic.items() if b == base and (x == "-" or x in arguments)), 0), **counter}
        for key in ("LDL", "STL", "HMMA", "HGMMA", "LDSM", "LDGSTS", "barriers"):
            row.setdefault(key, 0)
        row["loads"], row["stores"] = widths(row, "load"), widths(row, "store")
        row["blocks"], row["bound"] = occupancy(architecture, row)
        rows.append(row)
    if not rows:
        sys.exit(f"{program} holds no kernels")
    broken = [problem for row in rows for problem in broken_rules(row)]
    architectures = sorted({row["architecture"] for row in rows})
    text = f"{len(rows)} kernels of {program.name} for {', '.join('sm_' + x for x in architectures)}; loads and stores: count x bits; shared: bytes, static and dynamic\n\n"
    text += table(rows) + "\n" + ("\n".join(broken) if broken else "no rule is broken") + "\n"
    (a.folder / "static_report.txt").write_text(text)
    (a.folder / "static_report.json").write_text(json.dumps({"kernels": rows, "broken": broken}, indent=1))
    print("\n".join(broken) or f"{len(rows)} kernels for {len(architectures)} architectures: no rule is broken")
    print(f"table: {a.folder / 'static_report.txt'}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()

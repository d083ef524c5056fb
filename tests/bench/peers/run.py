"""Alternates `roformer bench` and peer_torch.py and compares medians. run.sh starts it in its own Python environment."""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

import h5py
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parents[2]


def has_bf16():
    """The processor multiplies bf16 itself, and may: ONEDNN_MAX_CPU_ISA holds for both programs."""
    flags, limit = pathlib.Path("/proc/cpuinfo").read_text().split(), os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL")
    return ("avx512_bf16" in flags or "amx_bf16" in flags) and (limit == "ALL" or "BF16" in limit or "AMX" in limit)


def run_measured(command, given=None):
    """What it said, and its largest resident memory in bytes. Ends the program where it fails."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(list(map(str, command)), stdin=given, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {process.returncode}\n{text}")
    return text, used.ru_maxrss * 1024


def encode_ours(a, dtype):
    """Tokens per second of `roformer encode` over the lines of a file, and the lengths that they have."""
    output = a.folder / "hidden.h5"
    with open(a.encode, encoding="utf-8") as lines:
        text, peak = run_measured([a.roformer, "encode", "--checkpoint", a.checkpoint, "--out", output, "--dtype", dtype], lines)
    with h5py.File(output) as file:
        lengths = [int(n) for n in np.diff(file["offsets"][:])]
    rate = float(re.search(r"\(([\d.]+) tokens/s\)", text).group(1))
    return {"peak_bytes": peak, "tokens_per_second": rate, "seconds": sum(lengths) / rate}, lengths


def run_ours(a, dtype):
    output = a.folder / "bench.h5"
    settings = {"model": a.model, "batch.sequences": a.sequences, "batch.max_length": a.length, "batch.lanes": a.lanes, "parallel.threads": a.threads,
                "steps": a.steps, "device": a.device, "dtype": dtype, "output": output}
    if a.corpus:
        settings["corpus"] = a.corpus
    command = [a.roformer, "bench", *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))]
    peak = run_measured(command)[1]
    with h5py.File(output) as file:
        column = lambda name: float(file[f"bench/{name}"][-1])  # the last row is this measurement
        return {"peak_bytes": peak, "seconds": column("seconds_per_step"), "processor_seconds": column("processor_seconds_per_step"), "backward": column("seconds_backward"), "update": column("seconds_optimizer"),
                "tokens_per_second": column("tokens_per_second"), "flops_per_second": column("flops_per_second"), "product_rate": column("product_flops_per_second"),
                "processor": file.attrs["processor"]}


def run_peer(a, dtype, mode):
    """None where the variant does not run (no compiler, say)."""
    command = [sys.executable, HERE / "peer_torch.py", "--model", a.model, "--sequences", a.sequences, "--length", a.length, "--threads", a.threads,
               "--steps", a.steps, "--dtype", dtype, "--mode", mode, "--device", a.device, "--lanes", a.lanes, *(["--corpus", a.corpus] if a.corpus else []), *(["--encode", a.folder / "lengths.json"] if a.encode else [])]
    # Big blocks stay with the process instead of going back to the kernel page by page: worth some per cent to PyTorch.
    own = {"OMP_NUM_THREADS": str(a.threads), "MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
           "MALLOC_TOP_PAD_": str(64 << 20), "TORCHINDUCTOR_CACHE_DIR": str(a.folder / "compiled")}
    try:
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=a.patience,
                              env={**os.environ, **own})
    except subprocess.TimeoutExpired:
        print(f"PyTorch {dtype} {mode}: not done after {a.patience} s, left out", flush=True)
        return None
    if done.returncode:
        print(f"PyTorch {dtype} {mode}: exit code {done.returncode}, left out: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def best_peer(a, dtypes):
    """The fastest variant of the peer, each tried once."""
    trial = {(dtype, mode): result for dtype in dtypes for mode in a.modes if (result := run_peer(a, dtype, mode))}
    if not trial:
        sys.exit("no variant of the peer ran")
    for (dtype, mode), result in trial.items():
        print(f"trial: PyTorch {dtype} {mode}: {result['tokens_per_second']:.0f} tokens/s", flush=True)
    return max(trial, key=lambda key: trial[key]["tokens_per_second"])


def product_flops(model, lengths):
    """Of the products of all layers, forward, attention's included: a multiply-add is two."""
    config = json.loads(model.read_text())
    c = config["hidden_size"]
    return 2 * config["num_hidden_layers"] * c * sum(n * (4 * c + 2 * config["intermediate_size"]) + 2 * n * n for n in lengths)


def compare_encode(a, dtypes, ours_dtype):
    """Beside the ratio of each round, the most that it could be: if nothing took time but products, at oneDNN's own rate in that round."""
    (a.folder / "lengths.json").write_text(json.dumps(encode_ours(a, ours_dtype)[1]))
    dtype, mode = best_peer(a, dtypes)
    ratios, limits, shares = [], [], []
    for number in range(1, a.rounds + 1):
        ours, lengths = encode_ours(a, ours_dtype)
        peer = run_peer(a, dtype, mode)
        products = run_ours(a, ours_dtype)["product_rate"]
        most = products * sum(lengths) / product_flops(a.model, lengths)
        ratios.append(ours["tokens_per_second"] / peer["tokens_per_second"])
        limits.append(most / peer["tokens_per_second"])
        shares.append(ours["tokens_per_second"] / most)
        print(f"round {number}: roformer {ours_dtype} {ours['tokens_per_second']:.0f}, PyTorch {dtype} {mode} {peer['tokens_per_second']:.0f} tokens/s, ratio {ratios[-1]:.2f}; "
              f"products alone at oneDNN's {products * 1e-9:.0f} GFLOP/s {most:.0f} tokens/s, ratio {limits[-1]:.2f}", flush=True)
    print(f"\n{len(lengths)} lines, {sum(lengths)} tokens, lengths {min(lengths)} to {max(lengths)}; {a.threads} threads; medians of {a.rounds} rounds: ratio {statistics.median(ratios):.2f}, "
          f"at most {statistics.median(limits):.2f}, reached {100 * statistics.median(shares):.0f} % of that")


def main():
    parser = argparse.ArgumentParser(prog="run.sh FOLDER")
    parser.add_argument("--folder", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=7, help="measured updates a process")
    parser.add_argument("--model", type=pathlib.Path, default=SOURCE / "inputs/model/small.json")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--lanes", type=int, default=1, help="micro-batches of an update")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--patience", type=int, default=600, help="seconds for one process of the peer")
    parser.add_argument("--modes", nargs="+", default=["eager", "compile"], choices=["eager", "compile"])
    parser.add_argument("--roformer", type=pathlib.Path, default=SOURCE / "build/cpu-release/roformer")
    parser.add_argument("--corpus", type=pathlib.Path, help="a corpus of build-corpus: its lengths; the peer pads")
    parser.add_argument("--encode", type=pathlib.Path, help="a file of lines: inference on them; needs --checkpoint of the same model")
    parser.add_argument("--checkpoint", type=pathlib.Path)
    a = parser.parse_args()
    if bool(a.encode) != bool(a.checkpoint):
        parser.error("--encode and --checkpoint come together")
    if not a.roformer.exists():
        sys.exit(f"{a.roformer} is missing: cmake --preset cpu-release && cmake --build --preset cpu-release")
    dtypes = ["bf16"] if a.device == "cuda" else ["f32", "bf16"] if has_bf16() else ["f32"]

    ours_dtype = "bf16" if "bf16" in dtypes else "f32"
    if a.encode:
        return compare_encode(a, dtypes, ours_dtype)
    # One process of each variant first; the rounds are between the fastest of both sides.
    dtype, mode = best_peer(a, dtypes)
    ours, peer = [], []
    for number in range(1, a.rounds + 1):
        ours.append(run_ours(a, ours_dtype))
        result = run_peer(a, dtype, mode)
        if not result:
            sys.exit("the peer ran in its trial and failed in a round")
        peer.append(result)
        print(f"round {number}: roformer {ours[-1]['tokens_per_second']:.0f}, PyTorch {peer[-1]['tokens_per_second']:.0f} tokens/s, "
              f"ratio {ours[-1]['tokens_per_second'] / peer[-1]['tokens_per_second']:.2f}", flush=True)

    middle = lambda rows, key: statistics.median(row[key] for row in rows)
    # With real lengths every draw has another number of tokens: ratios are of the time a token takes.
    each = lambda row, key: row[key] / (row["tokens_per_second"] * row["seconds"])
    ratios, processor_ratios = ([each(p, key) / each(o, key) for o, p in zip(ours, peer)] for key in ("seconds", "processor_seconds"))
    print(f"\n{ours[0]['processor']}; {a.threads} threads; {a.model.stem}, {a.sequences} x {'<= ' if a.corpus else ''}{a.length} in {a.lanes} lanes, dropout on, LAMB; "
          f"medians of {a.rounds} rounds of {a.steps} updates\n")
    print("| program | dtype | update s | forward | backward | optimizer | tokens/s | ratio | processor s | ratio | memory MiB |\n"
          "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    names = (f"roformer | {ours_dtype}", f"PyTorch {peer[0]['version']} {mode} | {dtype}")
    for name, rows, ratio, processor_ratio in zip(names, (ours, peer), (statistics.median(ratios), 1), (statistics.median(processor_ratios), 1)):
        whole = middle(rows, "seconds")
        # On a GPU nothing waits within an update, so its parts have no times.
        backward, update = (middle(rows, key) if a.device == "cpu" else None for key in ("backward", "update"))
        parts = "| | |" if backward is None else f"| {whole - backward - update:.3f} | {backward:.3f} | {update:.3f} |"
        print(f"| {name} | {whole:.3f} {parts} {middle(rows, 'tokens_per_second'):.0f} | {ratio:.2f} | "
              f"{middle(rows, 'processor_seconds'):.3f} | {processor_ratio:.2f} | {middle(rows, 'peak_bytes') / 2**20:.0f} |")
    for what, values in (("wall", ratios), ("processor time", processor_ratios)):
        print(f"{what}, ratios of the rounds: {' '.join(f'{r:.2f}' for r in values)}")
    shares = [o["flops_per_second"] / o["product_rate"] for o in ours]
    print(f"roformer, of the rate of products alone in the same process: {' '.join(f'{100 * share:.0f}' for share in shares)} %, median {100 * statistics.median(shares):.0f} %")
    with h5py.File(a.folder / "peers.h5", "w") as file:
        table = file.create_group("peers")
        file.attrs.update({"processor": ours[0]["processor"], "model": a.model.stem, "peer": f"PyTorch {peer[0]['version']} {mode}",
                           "dtype": ours_dtype, "peer_dtype": dtype})
        columns = {"round": (list(range(1, a.rounds + 1)), "1"), "threads": ([a.threads] * a.rounds, "1"),
                   "sequences": ([a.sequences] * a.rounds, "1"), "length": ([a.length] * a.rounds, "tokens"),
                   "seconds": ([o["seconds"] for o in ours], "s"), "peer_seconds": ([p["seconds"] for p in peer], "s"), "ratio": (ratios, "1"),
                   "processor_seconds": ([o["processor_seconds"] for o in ours], "s"),
                   "peer_processor_seconds": ([p["processor_seconds"] for p in peer], "s"),
                   "product_share": (shares, "1"), "tokens_per_second": ([o["tokens_per_second"] for o in ours], "tokens/s"),
                   "peer_tokens_per_second": ([p["tokens_per_second"] for p in peer], "tokens/s"),
                   "peak_bytes": ([o["peak_bytes"] for o in ours], "bytes"), "peer_peak_bytes": ([p["peak_bytes"] for p in peer], "bytes")}
        for name, (values, units) in columns.items():
            table.create_dataset(name, data=values).attrs["units"] = units


if __name__ == "__main__":
    main()

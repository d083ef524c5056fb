#!/usr/bin/python3
"""Kills all ranks of a small run at random instants and lets the same command continue, until it is done; then its state must
be that of an undisturbed run, bit for bit, and its results without a hole or a double row. Prints what was hit.

    kill_campaign.py [--command pretrain|build-corpus|clue] [--kills 20] [--seed 1] [--ranks 2] [--steps 240] [--folder F]

--ranks 2,1,4 takes these rank counts in turn, another at every start. A campaign that is itself interrupted continues when
given the same --folder. Of every five kills one comes while the run starts, one waits for a checkpoint being written and one
for results.h5 being written; the others come at any instant of an update. `build-corpus` and `clue` are killed at instants drawn evenly from
the time that an undisturbed one takes; whenever one gets done, its files are compared and it begins anew. Needs ROFORMER, the program (default: that of
build/cpu-release); temporary files go to a folder of their own."""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("RF_SOURCE_DIR", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
os.environ.setdefault("ROFORMER", os.path.join(os.environ["RF_SOURCE_DIR"], "build/cpu-release/roformer"))
for name, value in (("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"), ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
                    ("OMPI_MCA_hwloc_base_binding_policy", "none")):
    os.environ.setdefault(name, value)

import small_tasks  # noqa: E402
from harness import ROFORMER, prepare, run, sets, state, tiny, write_text  # noqa: E402

AIMS = ("start", "update", "results writing", "checkpoint writing", "update")
LONGEST_WAIT = 60  # seconds for the aimed-at phase or step to come; then the kill takes what it finds


def rows(folder):
    """Steps of the training rows in the journal; a torn last line does not count."""
    steps = []
    try:
        with open(f"{folder}/results.jsonl", encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n") and '"train"' in line:
                    steps.append(int(json.loads(line)["row"][0]))
    except FileNotFoundError:
        pass
    return steps


def checkpoints(folder):
    """Published steps, and whether one is being written, as the disk shows it."""
    names = os.listdir(f"{folder}/checkpoints") if os.path.isdir(f"{folder}/checkpoints") else []
    return [int(n[5:]) for n in sorted(names) if not n.endswith(".partial")], any(n.endswith(".partial") for n in names)


def touched(path, since):
    """It is there and was written to after that time: what an earlier kill left does not count."""
    try:
        return os.stat(path).st_mtime >= since
    except FileNotFoundError:
        return False


def writes_checkpoint(folder, since):
    names = os.listdir(f"{folder}/checkpoints") if os.path.isdir(f"{folder}/checkpoints") else []
    return any(touched(f"{folder}/checkpoints/{name}", since) for name in names if name.endswith(".partial"))


def phase(folder, since):
    if writes_checkpoint(folder, since):
        return "checkpoint writing"
    if touched(f"{folder}/results.h5.partial", since):
        return "results writing"
    return "update" if touched(f"{folder}/results.jsonl", since) else "start"


def rank_pids(process, ranks):
    """The ranks' processes, once all are there; under mpirun they are its children, in process groups of their own. One that is forked
    and not yet this program does not count: mpirun waits for ever when it dies then."""
    if ranks == 1:
        return [process.pid]
    while process.poll() is None:
        children = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
                    name, _, rest = stat.read().rpartition(")")
                    if int(rest.split()[1]) == process.pid and not name.endswith("(mpirun"):
                        children.append(int(pid))
            except OSError:
                pass  # it ended meanwhile
        if len(children) == ranks:
            return children
        time.sleep(0.0005)
    return []


def kill_all(pids):
    for pid in pids:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            pass


def wait_for_launcher(process):
    """The ranks are gone. PMIx may deadlock when it is finalized over a rank that died while it connected (one in some hundred starts);
    then mpirun, which has nothing of ours in it, is ended too."""
    try:
        process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        print("mpirun did not end although its ranks were gone", flush=True)
        process.kill()
        process.communicate(timeout=10)


def disturb(folder, settings, ranks, aim, target, rng):
    """One start of the run and its end by force; returns (seconds, phase left on disk), or None when it was done before."""
    command = [ROFORMER, "pretrain", *settings]
    if ranks > 1:
        command = ["mpirun", "-n", str(ranks), *command]
    since = time.time()
    with open(f"{folder}.out", "w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    begin = time.monotonic()

    def wait_for(ready):
        while process.poll() is None and time.monotonic() - begin < LONGEST_WAIT and not ready():
            time.sleep(0.0005)

    pids = []
    if aim == "start":
        time.sleep(rng.uniform(0, 0.5))
    elif aim == "results writing":  # the first one comes with the first update of a start
        wait_for(lambda: touched(f"{folder}/results.jsonl", since))
        pids = rank_pids(process, ranks)
        wait_for(lambda: touched(f"{folder}/results.h5.partial", since))
    else:
        wait_for(lambda: touched(f"{folder}/results.jsonl", since) and (rows(folder) or [0])[-1] >= target)
        pids = rank_pids(process, ranks)
        if aim == "checkpoint writing":
            wait_for(lambda: writes_checkpoint(folder, since))
        time.sleep(rng.uniform(0, 0.02))
    if process.poll() is not None:
        if process.returncode != 0:
            sys.exit(f"kill_campaign: the run failed by itself with {process.returncode}:\n{open(f'{folder}.out', encoding='utf-8').read()}")
        return None
    kill_all(pids or rank_pids(process, ranks))
    wait_for_launcher(process)
    return time.monotonic() - begin, phase(folder, since)


def check_whole(folder, steps):
    """No hole and no double row, in the journal and in the HDF5 table alike."""
    import h5py

    assert rows(folder) == list(range(1, steps + 1)), f"{folder}/results.jsonl: rows {rows(folder)}"
    with h5py.File(f"{folder}/results.h5", "r") as file:
        assert list(file["train/step"][:]) == list(range(1, steps + 1)), f"{folder}/results.h5: /train/step"


def campaign(folder, kills, seed, ranks, steps):
    """The table's rows; raises where a start, the final state or the results are not as they must be."""
    prepare()
    settings = dict(steps=steps, checkpoint_every=3, eval_every=steps // 4, log_every=50)
    if not os.path.exists(f"{folder}.undisturbed/results.h5"):
        run("pretrain", *tiny(f"{folder}.undisturbed", **settings))
    memory = f"{folder}.json"
    table = json.load(open(memory, encoding="utf-8")) if os.path.exists(memory) else []
    for row in table:
        print("  ".join(row), flush=True)
    for kill in range(len(table), kills):
        rng = random.Random(f"{seed} {kill}")
        aim, target = AIMS[kill % len(AIMS)], int((kill + rng.random()) / (kills + 1) * steps)
        hit = disturb(folder, tiny(folder, **settings), ranks[kill % len(ranks)], aim, target, rng)
        if hit is None:
            print(f"the run was done before kill {kill + 1}", flush=True)
            break
        published, _ = checkpoints(folder)
        done = rows(folder)
        # What is published is whole, whatever was going on.
        outcome = f"step {published[-1]} is whole" if published else "no checkpoint yet"
        if published:
            run("verify", f"{folder}/checkpoints")
        row = [f"{kill + 1:4d}", f"{ranks[kill % len(ranks)]} ranks", f"{hit[0]:6.2f} s", f"step {done[-1] if done else 0:4d}", f"{hit[1]:18s}", outcome]
        table.append(row)
        with open(memory + ".partial", "w", encoding="utf-8") as out:
            json.dump(table, out)
        os.replace(memory + ".partial", memory)
        print("  ".join(row), flush=True)
    newest = (checkpoints(folder)[0] or [0])[-1]
    text = run("pretrain", *tiny(folder, **settings), ranks=ranks[kills % len(ranks)])
    assert newest == 0 or newest == steps or f"continuing from the checkpoint of step {newest}" in text, text
    assert state(folder) == state(f"{folder}.undisturbed"), f"{folder}: the final state differs from the undisturbed run's"
    check_whole(folder, steps)
    inside = {what: sum(row[4].startswith(what) for row in table) for what in ("start", "update", "results writing", "checkpoint writing")}
    print(f"after {len(table)} kills ({', '.join(f'{n} {what}' for what, n in inside.items())}): {state(folder)}, as undisturbed; {steps} rows without hole or double", flush=True)
    return table


def corpus_command(output):
    return "build-corpus", *sets(text="long.txt", vocab="vocab.txt", output=output, segmenter__name="none", shard_tokens=200000)


def corpus_content(output):
    """Name and bytes of every shard, digest and mark."""
    return {name: open(f"{output}/{name}", "rb").read() for name in sorted(os.listdir(output))}


def clue_command(output):
    finetune = {"epochs": 3, "batch": {"sequences": 8, "lanes": 2}, "checkpoint_every": 2, "log_every": 100}
    return "clue", *sets(checkpoint="start", output=output, tasks='["one.json","two.json"]', data=".", dtype="f32", parallel__threads=1, settings="{}",
                         finetune=json.dumps(finetune))


def clue_content(output):
    """Figures, submissions and the state of the weights; times and hosts differ."""
    import h5py

    found = {}
    with h5py.File(f"{output}/clue.h5", "r") as file:
        for task in ("one", "two"):
            found[task] = ([float(x) for x in file[f"clue/{task}/dev"][:]], state(f"{output}/{task}"))
    for name in sorted(os.listdir(f"{output}/submission")):
        found[name] = open(f"{output}/submission/{name}", "rb").read()
    return found


def prepare_corpus():
    prepare()
    if not os.path.exists("long.txt"):
        write_text("long.txt", 30000)


def prepare_clue():
    if os.path.exists("start"):
        return
    for kind, name in (("classify", "one"), ("span", "two")):
        small_tasks.write_task(kind, name, submission={"files": [f"{name}.json"], "form": "labels" if kind == "classify" else "answers"})
    run("build-corpus", *sets(text="one.jsonl", vocab="vocab.txt", output="corpus", segmenter__name="none"))
    run("pretrain", *sets(model__hidden_size=32, model__num_attention_heads=2, model__num_hidden_layers=2, model__intermediate_size=64, model__vocab_size=80,
                          corpus="corpus", vocab="vocab.txt", output="start", steps=0, batch__sequences=4, batch__max_length=32, batch__lanes=2,
                          evaluation__documents=4, dtype="f32", parallel__threads=1))


COMMANDS = {"build-corpus": (prepare_corpus, corpus_command, corpus_content), "clue": (prepare_clue, clue_command, clue_content)}


def command_campaign(command, kills, seed, ranks):
    """Kills of a command that is begun anew whenever it got done."""
    prepare_it, words, content = COMMANDS[command]
    prepare_it()
    begin = time.monotonic()
    run(*words("undisturbed"), ranks=ranks[0])
    expected, whole = content("undisturbed"), time.monotonic() - begin
    memory = "kills.json"
    done = json.load(open(memory, encoding="utf-8")) if os.path.exists(memory) else {"kills": 0, "finished": 0, "starts": 0}
    while done["kills"] < kills:
        rng = random.Random(f"{seed} {done['starts']}")
        n = ranks[done["starts"] % len(ranks)]
        line = [ROFORMER, *map(str, words("killed"))]
        process = subprocess.Popen(["mpirun", "-n", str(n), *line] if n > 1 else line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            text = process.communicate(timeout=rng.uniform(0, whole))[0].decode()
        except subprocess.TimeoutExpired:
            kill_all(rank_pids(process, n))
            wait_for_launcher(process)
            done["kills"] += 1
        else:
            assert process.returncode == 0, text
            assert content("killed") == expected, "what was built after kills differs from the undisturbed"
            done["finished"] += 1
            shutil.rmtree("killed")
        done["starts"] += 1
        with open(memory + ".partial", "w", encoding="utf-8") as out:
            json.dump(done, out)
        os.replace(memory + ".partial", memory)
    run(*words("killed"), ranks=ranks[0])
    assert content("killed") == expected, "what was built after kills differs from the undisturbed"
    done["finished"] += 1
    print(f"{command}: {done['kills']} kills in {done['starts']} starts, {done['finished']} times done, each as undisturbed (which takes {whole:.1f} s)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--command", default="pretrain", choices=("pretrain", *COMMANDS))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ranks", default="2")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--folder", help="where the campaign lives and continues; default: a temporary folder, removed at the end")
    args = parser.parse_args()
    folder = os.path.abspath(args.folder) if args.folder else tempfile.mkdtemp(prefix="roformer-kill-")
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    try:
        ranks = [int(n) for n in args.ranks.split(",")]
        if args.command == "pretrain":
            campaign("run", args.kills, args.seed, ranks, args.steps)
        else:
            command_campaign(args.command, args.kills, args.seed, ranks)
    finally:
        os.chdir("/")
        if not args.folder:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

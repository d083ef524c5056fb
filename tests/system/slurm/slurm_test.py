#!/usr/bin/python3
"""The batch scripts on a real Slurm of three nodes (cluster.py): a run that is signalled, preempted, loses a node and a rank, meets its time limit
and is cancelled ends in the undisturbed run's state; every other script does its work. Skipped without root or Slurm's packages."""

import glob
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import h5py  # noqa: E402

from cluster import Cluster, obstacle, wait_until  # noqa: E402
from harness import SKIP, SOURCE, prepare, run, sets, state, tiny  # noqa: E402
from small_tasks import write_task  # noqa: E402

STEPS = 120
WARNING = "told to stop by SIGUSR1"
SMALL = ("--ntasks-per-node=1", "--cpus-per-task=1")  # the scripts ask for what a cluster has


def settings(output, **more):
    values = dict(steps=STEPS, checkpoint_every=20, eval_every=STEPS, log_every=10)
    values.update(more)
    return tiny(os.path.abspath(output), corpus=os.path.abspath("corpus"), vocab=os.path.abspath("vocab.txt"), **values)


def steps_of(folder):
    """Updates in the journal."""
    steps = [0]
    try:
        with open(f"{folder}/results.jsonl", encoding="utf-8") as lines:
            steps += [int(json.loads(line)["row"][0]) for line in lines if line.endswith("\n") and '"train"' in line]
    except FileNotFoundError:
        pass
    return steps[-1]


def text_of(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def submit(cluster, script, *arguments, options=(), env=None):
    """From the project's folder, as a user would, with the log in this one."""
    return cluster.submit(f"jobs/{script}", *arguments, options=[f"--output={os.getcwd()}/{script}-%j.log", *options], cwd=SOURCE, env=env)


def log_of(script, job):
    return text_of(f"{script}-{job}.log")


def wait_end(cluster, script, job, expect="COMPLETED", timeout=300):
    """The job's log when it is over and nothing of it is left."""
    ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")
    found = wait_until(lambda: cluster.state_of(job) in ended and cluster.state_of(job), f"the end of {script}", timeout, every=0.3)
    assert found == expect, f"{script}: {found}, expected {expect}\n{log_of(script, job)}"
    return log_of(script, job)


def paced(script, under):
    """The program with a disk that takes 50 ms longer over each write of one file: with the journal for that, an update takes as long everywhere, and
    no processor is so fast that the run is over before it is disturbed. Without the library of faults (sanitizers, slow enough) the program as it is."""
    with open(script, "w", encoding="utf-8") as out:
        out.write("#!/bin/sh\n")
        if "RF_FAULTS" in os.environ:
            out.write(f"export LD_PRELOAD={os.environ['RF_FAULTS']} FAULT_FOLDER={under} FAULT_CALLS=write FAULT_ERROR=SLOW FAULT_AT=1 FAULT_COUNT=0\n")
        out.write(f'exec {os.environ["ROFORMER"]} "$@"\n')
    os.chmod(script, 0o755)
    return os.path.abspath(script)


class Large:
    """jobs/pretrain_large.slurm with a tiny model on two of three nodes, and what is done to it."""

    script = "pretrain_large.slurm"
    options = ("--nodes=2", *SMALL, "--time=20", "--signal=B:USR1@60")

    def __init__(self, cluster):
        self.cluster = cluster
        self.paced = paced("paced.sh", "disturbed/results.jsonl")
        self.nothing = os.path.abspath("nothing.sh")
        with open(self.nothing, "w", encoding="utf-8") as out:
            out.write("#!/bin/sh\nexit 0\n")
        self.job = self.submit()

    def submit(self):
        return submit(self.cluster, self.script, *settings("disturbed"), options=self.options, env={"ROFORMER": self.paced})

    def log(self):
        return log_of(self.script, self.job)

    def wait_running(self, start):
        """Until this start has made some updates of its own."""
        said = f"start {start}: "
        wait_until(lambda: os.path.exists(f"{self.script}-{self.job}.log") and said in self.log() and self.log().split(said)[-1].count("step ") > 1, f"start {start} runs", 180)
        before = steps_of("disturbed")
        wait_until(lambda: steps_of("disturbed") >= before + 4, f"updates of start {start}", 120)
        assert self.cluster.state_of(self.job) == "RUNNING", self.log()

    def wait_queued_again(self, start):
        """Slurm counts it when the job has left its nodes."""
        wait_until(lambda: self.cluster.starts_of(self.job) == start and not self.cluster.ranks_of(self.job), f"the end of start {start - 1}", 120)

    def told_by_signal(self):
        self.cluster.call("scancel", "--signal=USR1", "--batch", self.job)

    def preempted(self):
        """By a job that Slurm lets go first: SIGTERM, half a minute of grace, then back into the queue."""
        urgent = self.cluster.submit(self.nothing, options=["--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null"])
        wait_until(lambda: self.cluster.state_of(urgent) == "COMPLETED", "the urgent job", 180)

    def node_lost(self):
        batch_host = self.cluster.job(self.job)["BatchHost"]
        lost = next(node for node in self.cluster.nodes if node != batch_host and self.cluster.ranks_of(self.job, [node]))
        self.cluster.lose_node(lost)
        self.lost = lost  # the third node takes its place

    def rank_killed(self):
        self.cluster.kill(self.cluster.ranks_of(self.job)[-1], 9)

    def out_of_time(self):
        """The limit is lowered to a minute from its start, and the warning is due; Slurm looks every half minute. So that the run is not over by then, a
        rank sleeps until the warning is there."""
        rank = self.cluster.ranks_of(self.job)[0]
        before = self.log().count(WARNING)
        self.cluster.kill(rank, signal.SIGSTOP)
        self.cluster.call("scontrol", "update", f"jobid={self.job}", "timelimit=1")
        wait_until(lambda: self.log().count(WARNING) > before, "the warning of the time limit", 100)
        self.cluster.kill(rank, signal.SIGCONT)

    def longer(self):
        self.cluster.call("scontrol", "update", f"jobid={self.job}", "timelimit=20")


DISTURBANCES = ("told_by_signal", "node_lost", "rank_killed", "preempted", "out_of_time")


def test_a_large_run_survives_all_that_a_cluster_does(cluster):
    large = Large(cluster)
    # While the job waits in the queue the processors are free for the run that it is compared with.
    undisturbed = ThreadPoolExecutor(1).submit(run, "pretrain", *settings("undisturbed"))
    for start, disturbance in enumerate(DISTURBANCES, 1):
        large.wait_running(start)
        begin, step = time.monotonic(), steps_of("disturbed")
        getattr(large, disturbance)()
        large.wait_queued_again(start + 1)
        print(f"     {disturbance} at step {step}: off its nodes after {time.monotonic() - begin:.1f} s", flush=True)
    large.longer()
    large.wait_running(len(DISTURBANCES) + 1)
    cluster.call("scancel", large.job)
    log = wait_end(cluster, large.script, large.job, "CANCELLED")
    # The script itself may be killed before it says so (KillWait), but it must not bring the job back.
    last = log.split(f"start {len(DISTURBANCES) + 1}: ")[-1]
    assert "checkpoint durable" in last and "queued again\n" not in last, log
    assert log.count(WARNING) == 2, log  # of the signal and the time limit; preemption speaks to the ranks alone, scancel by SIGTERM
    assert log.count("stopped after a durable checkpoint") >= 3, log
    assert "ended by signal" in log and "DUE TO NODE FAILURE" in log, log
    reached = steps_of("disturbed")
    assert reached < STEPS, "the run was over before it was cancelled"
    large.job = large.submit()
    log = wait_end(cluster, large.script, large.job)
    assert f"start 1: pretrain inputs/pretrain_large.json into {os.path.abspath('disturbed')}, 2 ranks of 1 threads on n" in log, log
    assert "continuing from the checkpoint of step" in log and log.rstrip().endswith(": done"), log
    undisturbed.result()
    assert state("disturbed") == state("undisturbed")
    with h5py.File("disturbed/results.h5", "r") as file:
        assert list(file["train/step"][:]) == list(range(1, STEPS + 1))
    cluster.repair_node(large.lost)


def submit_nowhere(cluster):
    """A job whose program stops at once, every time."""
    with open("stopper", "w", encoding="utf-8") as out:
        out.write("#!/bin/sh\nexit 75\n")
    os.chmod("stopper", 0o755)
    return submit(cluster, "pretrain_small.slurm", *settings("nowhere"), options=SMALL, env={"ROFORMER": os.path.abspath("stopper"), "MAX_FRUITLESS": "2"})


def test_every_other_script_and_a_job_that_gives_up(cluster):
    """At the same time, for they wait for each other's nodes at most."""
    nowhere = submit_nowhere(cluster)
    few = dict(steps=4, checkpoint_every=4, eval_every=4)
    write_task("classify")
    write_model()
    model = ["--set", "model.vocab_size=400"]
    jobs = {script: submit(cluster, f"{script}.slurm", *settings(script, **few), *model, options=SMALL) for script in ("pretrain_small", "pretrain_base")}
    task = os.path.abspath("classify.json")
    shared = sets(vocab=os.path.abspath("vocab.txt"), tasks=json.dumps([task]), dtype="f32", seed=1, data="")
    shape = sets(model__hidden_size=32, model__num_attention_heads=4, model__num_hidden_layers=2, model__intermediate_size=64, model__vocab_size=400)
    jobs["multitask_large"] = submit(cluster, "multitask_large.slurm", *shared, *shape, *sets(
        checkpoint="", corpus=os.path.abspath("corpus"), output=os.path.abspath("multitask"), steps=2, batch__sequences=16, batch__lanes=2, mix__micro_steps=2, eval_every=2),
        options=["--nodes=1", *SMALL])
    with open("piece.jsonl", "w", encoding="utf-8") as out:
        out.write('{"text": "天地玄黄"}\n')
    text = json.dumps([os.path.abspath("text.txt"), os.path.abspath("piece.jsonl")])
    jobs["build_corpus"] = submit(cluster, "build_corpus.slurm", *sets(text=text, vocab=os.path.abspath("vocab.txt"), output=os.path.abspath("built"), segmenter__name="none"),
                                  options=["--array=3-5", *SMALL])
    for script, job in jobs.items():
        if script != "build_corpus":
            assert "done" in wait_end(cluster, f"{script}.slurm", job), script
    assert run("inspect", "pretrain_small").count("digest state") == run("inspect", "multitask").count("digest state") == 1
    jobs["clue"] = submit(cluster, "clue.slurm", *shared, *sets(checkpoint=os.path.abspath("multitask"), output=os.path.abspath("clue"), finetune__runs=1, finetune__epochs=1),
                          options=SMALL)
    jobs["scaling"] = submit(cluster, "scaling.slurm", "--ranks", "1 2", "--tensor", "1", "--batch", "none", "--per-rank", "1", "--rounds", "1", "--steps", "1", "--length", "16",
                             "--model", os.path.abspath("model.json"), "--output", os.path.abspath("scaling"), options=SMALL)
    wait_until(lambda: len(glob.glob("built-*/corpus.json")) == 2, "two corpora", 180)
    built = [json.loads(text_of(f"built-{task}/corpus.json")) for task in (3, 4)]
    assert not os.path.exists("built-5") and built[0] != built[1]
    run("verify", "built-3", "built-4")
    assert "done" in wait_end(cluster, "clue.slurm", jobs["clue"])
    assert os.path.exists("clue/clue.h5")
    assert "weak: 1 sequences a rank, ranks 2, tensor 1: " in wait_end(cluster, "scaling.slurm", jobs["scaling"])
    log = wait_end(cluster, "pretrain_small.slurm", nowhere, "FAILED")
    assert "start 2: " in log and "start 3: " not in log and "2 starts in a row left no new checkpoint" in log, log


def write_model():
    with open("model.json", "w", encoding="utf-8") as out:
        json.dump({"family": "roformer_v2", "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 400}, out)


def main():
    if why := obstacle():
        print(f"skipped: {why}")
        sys.exit(SKIP)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # no daemon stays behind
    folder = tempfile.mkdtemp(prefix="roformer-slurm-")
    os.chmod(folder, 0o755)
    os.chdir(folder)
    # Ranks share two cores with others of their job: who waits gives way.
    os.environ["OMPI_MCA_mpi_yield_when_idle"] = "1"
    failed = False
    try:
        prepare()
        with Cluster("cluster") as cluster:
            for name, test in list(globals().items()):
                if not name.startswith("test_") or (len(sys.argv) > 1 and sys.argv[1] not in name):
                    continue
                begin = time.monotonic()
                try:
                    test(cluster)
                    print(f"ok   {name} ({time.monotonic() - begin:.0f} s)", flush=True)
                except Exception:
                    failed = True
                    print(f"FAIL {name}", flush=True)
                    traceback.print_exc(file=sys.stdout)
                    for path in sorted(glob.glob("*.log")) + ["cluster/log/slurmctld.log"]:
                        print(f"-- {path}\n{text_of(path)[-4000:]}", flush=True)
                    break
    finally:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

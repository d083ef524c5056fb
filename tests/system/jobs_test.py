#!/usr/bin/python3
"""jobs/lib.sh and jobs/read_input.py with stand-ins for Slurm's commands and the program: what becomes of each exit code and signal, arguments, a
site's own settings, when a job gives up. The real Slurm is in slurm/."""

import json
import os
import signal
import subprocess
import time

from harness import SOURCE, main

JOBS = os.path.join(SOURCE, "jobs")


def write(path, text, mode=0o755):
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)
    os.chmod(path, mode)


def lines_of(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


class Job:
    """A folder with an output folder and stand-ins that note what they are asked: srun runs the program once, scontrol knows the job's state, the
    program does what it is told."""

    def __init__(self, name, script="pretrain_large.slurm"):
        self.folder, self.script = os.path.abspath(name), f"{JOBS}/{script}"
        here = self.folder
        write(f"{here}/bin/srun", f'#!/bin/bash\n: >{here}/srun.said\nwhile [[ $1 == --* ]]; do echo "$1" >>{here}/srun.said; shift; done\nexec "$@"\n')
        write(f"{here}/bin/scontrol", f"""#!/bin/bash
if [[ $1 == show ]]; then echo "JobId=7 JobName=x Priority=1 JobState=${{STATE:-RUNNING Reason=None}} Dependency=(null)"; exit; fi
[[ -z $NO_REQUEUE ]] || {{ echo "Requested operation is presently disabled"; exit 1; }}
echo "$@" >>{here}/requeued
""")
        write(f"{here}/program", f'#!/bin/bash\nprintf "%s\\n" "$@" >{here}/program.said\necho "$OMP_NUM_THREADS $SRUN_CPUS_PER_TASK" >{here}/threads.said\ncd {here}\neval "$DOES"\n')

    def start(self, *arguments, does="true", restarts=0, **more):
        env = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        env.update(PATH=f"{self.folder}/bin:{env['PATH']}", ROFORMER=f"{self.folder}/program", ROFORMER_HOME=SOURCE, SLURM_JOB_ID="7", SLURM_NTASKS="2", SLURM_CPUS_PER_TASK="3",
                   SLURM_RESTART_COUNT=str(restarts), DOES=does)
        env.update({name: str(value) for name, value in more.items()})
        return subprocess.Popen([self.script, *arguments, "--set", f"output={self.folder}/out"], env={k: v for k, v in env.items() if v != ""}, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, cwd=self.folder, start_new_session=True)

    def run(self, *arguments, expect=0, **more):
        """The output of one start."""
        process = self.start(*arguments, **more)
        return self.finish(process, expect)

    @staticmethod
    def finish(process, expect):
        text = process.communicate(timeout=60)[0].decode()
        assert process.returncode == expect, f"exit code {process.returncode}, expected {expect}\n{text}"
        return text

    def said(self, what):
        return lines_of(f"{self.folder}/{what}.said")

    def requeues(self):
        """How often it was queued again since the last question."""
        path = f"{self.folder}/requeued"
        lines = lines_of(path)
        if lines:
            os.remove(path)
        assert all(line == "requeue 7" for line in lines), lines
        return len(lines)


def test_each_exit_code_has_its_consequence():
    job = Job("codes")
    for code, again, text in ((0, 0, "done"), (1, 0, "failed with exit code 1"), (2, 0, "failed with exit code 2"), (75, 1, "stopped after a durable checkpoint"),
                              (137, 1, "ended by signal 9"), (143, 1, "ended by signal 15")):
        out = job.run(does=f"exit {code}", expect=0 if again else code)
        assert job.requeues() == again and text in out, (code, out)
    assert job.said("srun") == ["--mpi=pmix", "--kill-on-bad-exit=1"]


def test_arguments_reach_the_program():
    job = Job("arguments")
    job.run("inputs/pretrain_small.json", "--set", "a=b c")
    assert job.said("program") == ["pretrain", "inputs/pretrain_small.json", "--set", "parallel.threads=3", "--set", "a=b c", "--set", f"output={job.folder}/out"]
    assert job.said("threads") == ["3 3"]
    job.run("--set=x=1", "--restart")
    assert job.said("program")[:6] == ["pretrain", "inputs/pretrain_large.json", "--set", "parallel.threads=3", "--set=x=1", "--restart"]
    job.run("--restart", restarts=1)  # meant once
    assert "--restart" not in job.said("program")
    for script, command, default in (("pretrain_small", "pretrain", "pretrain_small"), ("pretrain_base", "pretrain", "pretrain_base"),
                                     ("multitask_large", "multitask", "multitask_large"), ("clue", "clue", "clue")):
        job = Job(script, f"{script}.slurm")
        job.run()
        assert job.said("program")[:2] == [command, f"inputs/{default}.json"]
        assert os.path.exists(f"{SOURCE}/inputs/{default}.json")


def test_gives_up_after_starts_without_a_new_checkpoint():
    job = Job("fruitless")
    checkpoint = "mkdir -p out/checkpoints/step-0000000{} && exit 75"
    for restart, (does, expect) in enumerate([("exit 75", 0), (checkpoint.format(1), 0), ("exit 137", 0), ("mkdir -p out/checkpoints/step-00000002.partial; exit 75", 0), ("exit 75", 1)]):
        out = job.run(does=does, restarts=restart, expect=expect)
        assert job.requeues() == (expect == 0), (restart, out)
    assert "3 starts in a row left no new checkpoint" in out, out
    # Submitted again it has its three starts again. Those that Slurm ends without a word count too.
    for restart in range(3):
        process = job.start(does="sleep 60", restarts=restart, SLURM_JOB_ID=8, MAX_FRUITLESS=3)
        while job.said("threads") == [] or f"start {restart + 1}: " not in process.stdout.readline().decode():
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    out = job.run(restarts=3, expect=1, SLURM_JOB_ID=8, MAX_FRUITLESS=3)
    assert "3 starts in a row left no new checkpoint" in out and "start 4: " not in out, out
    assert "MAX_FRUITLESS: expected a whole number above 0" in job.run(expect=2, MAX_FRUITLESS=0)


def test_signals_reach_the_ranks_and_the_code_comes_back():
    for name in (signal.SIGUSR1, signal.SIGTERM):
        job = Job(f"signal{int(name)}")
        process = job.start(does='trap "sleep 0.3; mkdir -p out/checkpoints/step-00000009; exit 75" USR1; echo ready; while :; do sleep 0.05; done')
        while b"ready" not in process.stdout.readline():
            pass
        process.send_signal(name)
        heard = process.stdout.readline().decode()
        process.send_signal(signal.SIGUSR1)  # a second one changes nothing; of two at once a shell hears the one of the lower number first
        out = heard + job.finish(process, 0)
        assert f"told to stop by {name.name}" in heard and "stopped after a durable checkpoint" in out and out.count("told to stop") == 1 and job.requeues() == 1, out
    # Before the program listens it dies of the signal: nothing is lost, so the job goes on.
    job = Job("early")
    process = job.start(does="echo ready; exec sleep 60")
    while b"ready" not in process.stdout.readline():
        pass
    time.sleep(0.2)
    process.send_signal(signal.SIGUSR1)
    assert "ended by signal 10" in job.finish(process, 0) and job.requeues() == 1


def test_a_cancelled_job_stays_cancelled():
    job = Job("cancelled")
    # What Slurm shows of a job that it ends, for whatever reason, until its last process is gone.
    for code in (75, 137):
        assert "ended by Slurm (cancelled" in job.run(does=f"exit {code}", expect=code, STATE="COMPLETING Reason=None") and job.requeues() == 0
    assert "queued again" in job.run(does="exit 75", STATE="COMPLETING Reason=TimeLimit") and job.requeues() == 1
    out = job.run(does="exit 75", expect=75, NO_REQUEUE=1)
    assert "presently disabled" in out and "it cannot be queued again" in out, out


def test_a_site_has_its_own_ways():
    job = Job("site")
    # As environment modules do: unset variables, commands that fail, and a launcher of its own.
    write(f"{job.folder}/site.sh", f'unset ROFORMER\n[ -n "$NOT_SET_ANYWHERE" ]\nfalse\nROFORMER="env CONTAINED=yes {job.folder}/program" LAUNCH="{job.folder}/launch -x"\n')
    write(f"{job.folder}/launch", f'#!/bin/bash\nshift\necho "launched $@" >{job.folder}/launch.said\nexec "$@"\n')
    job.run(does="echo $CONTAINED >site.said", ROFORMER_SITE=f"{job.folder}/site.sh")
    assert job.said("site") == ["yes"] and job.said("launch")[0].startswith(f"launched env CONTAINED=yes {job.folder}/program pretrain"), job.said("launch")
    assert "ROFORMER_SITE: nowhere.sh is not there" in job.run(expect=2, ROFORMER_SITE="nowhere.sh")


def test_what_cannot_run_is_refused_in_one_line():
    job = Job("refused")
    assert job.run("absent.json", expect=2) == f"error: jobs: the input absent.json is not there (paths are relative to {SOURCE})\n"
    assert "submit it with sbatch" in job.run(expect=2, SLURM_JOB_ID="")
    assert "nowhere is not there; build it" in job.run(expect=2, ROFORMER="nowhere")
    assert "set ROFORMER_HOME" in job.run(expect=2, ROFORMER_HOME=job.folder)
    write(f"{job.folder}/broken.json", '{"output": ')
    assert job.run(f"{job.folder}/broken.json", expect=2).startswith("error: jobs: the input cannot be read: ")
    write(f"{job.folder}/out", "a file")
    assert "cannot make the output folder" in job.run(expect=2)


def read_input(*words):
    return subprocess.run(["python3", f"{JOBS}/read_input.py", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout.decode().strip()


def test_inputs_are_read_as_the_program_reads_them():
    write("in.json", json.dumps({"output": "here", "text": "texts"}))
    assert read_input("output", "in.json") == "here"
    assert read_input("output", "in.json", "--set", "output=there", "--restart", "--set=output=\"quoted\"") == "quoted"
    assert read_input("output", "in.json", "--set", "model.output=x") == "here"
    sizes = {"texts/a.txt": 50, "texts/deep/b.jsonl": 30, "texts/c.txt": 25, "texts/d.txt": 1}
    for path, size in sizes.items():
        write(path, "x" * size)
    parts = [json.loads(read_input("text", part, 2, "in.json")) for part in (0, 1)]
    assert parts == [["texts/a.txt", "texts/d.txt"], ["texts/c.txt", "texts/deep/b.jsonl"]], parts
    assert json.loads(read_input("text", 0, 1, "in.json", "--set", 'text=["texts/?.txt","texts/a.txt"]')) == ["texts/a.txt", "texts/c.txt", "texts/d.txt"]
    assert read_input("text", 4, 5, "in.json") == "[]"
    assert "nothing matches" in read_input("text", 0, 2, "in.json", "--set", "text=none/*")


def test_an_array_deals_the_text():
    job = Job("array", "build_corpus.slurm")
    write("array/texts/a.txt", "aa")
    write("array/texts/b.txt", "b")
    task = dict(SLURM_ARRAY_TASK_MIN=3, SLURM_ARRAY_TASK_COUNT=3)
    for number, files in ((3, ["a.txt"]), (4, ["b.txt"])):
        job.run("--set", f"text={job.folder}/texts", SLURM_ARRAY_TASK_ID=number, **task)
        words = job.said("program")
        assert words[:2] == ["build-corpus", "inputs/build_corpus.json"], words
        assert words[-4:] == ["--set", f"text={json.dumps([f'{job.folder}/texts/{name}' for name in files])}", "--set", f"output={job.folder}/out-{number}"], words
    os.remove("array/program.said")
    assert "more array tasks than text files" in job.run("--set", f"text={job.folder}/texts", SLURM_ARRAY_TASK_ID=5, **task) and not job.said("program")
    job.run("--set", f"text={job.folder}/texts")
    assert job.said("program")[-1] == f"output={job.folder}/out"
    assert "failed with exit code 1" in job.run(does="exit 1", expect=1)


if __name__ == "__main__":
    main(globals())

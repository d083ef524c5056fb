"""A Slurm of its own on one machine: munged, slurmctld and several slurmd, each of them a node to Slurm, all their state in one folder, all ports
on the loopback interface. Needs root, since slurmd starts processes as the job's user."""

import os
import shutil
import signal
import socket
import subprocess
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo")


def obstacle():
    """Why there can be no Slurm here; empty: there can."""
    if os.geteuid() != 0:
        return "needs root (slurmd starts processes as the job's user)"
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: slurm-wlm, munge)"
    try:
        if socket.gethostbyname(socket.gethostname().split(".")[0]).startswith("127."):
            return ""
    except OSError:
        pass
    return "this host's name must stand for 127.0.0.1"


def free_ports(count):
    """The first of so many neighbouring ports that nobody listens on."""
    for base in range(21000 + os.getpid() % 97 * 100, 32000, count):
        try:
            for port in range(base, base + count):
                with socket.socket() as s:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
    raise AssertionError("no free ports")


def wait_until(ready, what, timeout=60.0, every=0.1):
    """The first true value of `ready`; fails after so many seconds."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = ready()
        if value:
            return value
        time.sleep(every)
    raise AssertionError(f"{what}: not within {timeout:.0f} s")


def environment_of(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return dict(item.partition(b"=")[::2] for item in file.read().split(b"\0"))
    except OSError:
        return {}


def is_alive(pid):
    """A zombie, whose parent does not ask for it, is not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


class Cluster:
    """`with Cluster(folder, nodes) as cluster`: nodes n1, n2, … of `cpus` processors. Partition batch, and urgent, whose jobs preempt those of batch."""

    def __init__(self, folder, nodes=3, cpus=4):
        self.folder, self.nodes, self.cpus = os.path.abspath(folder), [f"n{i + 1}" for i in range(nodes)], cpus
        self.env = {**os.environ, "SLURM_CONF": f"{self.folder}/slurm.conf"}
        self.shared_memory = f"/dev/shm/roformer-slurm-{os.getpid()}"

    # -- its life

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def write(self, name, text, mode=0o644):
        with open(f"{self.folder}/{name}", "w", encoding="utf-8") as out:
            out.write(text)
        os.chmod(f"{self.folder}/{name}", mode)

    def start(self):
        d = self.folder
        for name in ("state", "log", "munge", *(f"{kind}.{node}" for kind in ("spool", "tmp") for node in self.nodes)):
            os.makedirs(f"{d}/{name}")
        with open(os.open(f"{d}/munge/key", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as key:
            key.write(os.urandom(128))
        # The nodes are one host in truth: each gets its own folders for shared memory and sessions of Open MPI, whose files would collide.
        self.write("task_prolog.sh", f"""#!/bin/sh
own={self.shared_memory}/$SLURM_JOB_ID.$SLURMD_NODENAME
mkdir -p "$own"
for name in btl_vader_backing_directory orte_tmpdir_base; do echo "export OMPI_MCA_$name=$own"; done
for name in btl oob; do echo "export OMPI_MCA_${{name}}_tcp_if_include=lo"; done
""", 0o755)
        self.write("epilog.sh", f'#!/bin/sh\nrm -rf "{self.shared_memory}/$SLURM_JOB_ID.$SLURMD_NODENAME"\n', 0o755)
        ports = free_ports(100)
        host = socket.gethostname().split(".")[0]
        settings = {
            "ClusterName": "test", "SlurmctldHost": f"{host}(127.0.0.1)", "SlurmctldPort": ports, "SlurmUser": "root", "SlurmdUser": "root",
            # A requeued job waits until the credentials of its last start have expired.
            "AuthType": "auth/munge", "CredType": "cred/munge", "AuthInfo": f"socket={d}/munge/socket,cred_expire=5",
            "StateSaveLocation": f"{d}/state", "SlurmdSpoolDir": f"{d}/spool.%n", "TmpFS": f"{d}/tmp.%n", "MailProg": "/bin/true",
            "SlurmctldPidFile": f"{d}/slurmctld.pid", "SlurmdPidFile": f"{d}/slurmd.%n.pid",
            "SlurmctldLogFile": f"{d}/log/slurmctld.log", "SlurmdLogFile": f"{d}/log/slurmd.%n.log",
            "TaskProlog": f"{d}/task_prolog.sh", "Epilog": f"{d}/epilog.sh",
            "ProctrackType": "proctrack/pgid", "TaskPlugin": "task/none", "JobAcctGatherType": "jobacct_gather/none", "AccountingStorageType": "accounting_storage/none",
            "SelectType": "select/cons_tres", "SelectTypeParameters": "CR_Core", "SchedulerType": "sched/backfill",
            "SchedulerParameters": "sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0",
            "PreemptType": "preempt/partition_prio", "PreemptMode": "REQUEUE",
            "MpiDefault": "none", "MpiParams": f"ports={ports + 60}-{ports + 99}", "SrunPortRange": f"{ports + 20}-{ports + 59}",
            "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny", "SlurmdParameters": "config_overrides", "ReturnToService": 2,
            # What the scripts must not depend on: a step that lost a rank is not ended by the site's own settings.
            "KillOnBadExit": 0, "KillWait": 10, "MinJobAge": 300, "MessageTimeout": 20, "SlurmdTimeout": 300, "JobRequeue": 1,
        }
        lines = [f"{name}={value}" for name, value in settings.items()]
        lines.append(f"NodeName=DEFAULT CPUs={self.cpus} Sockets=1 CoresPerSocket={self.cpus} ThreadsPerCore=1 RealMemory=1000 State=UNKNOWN")
        lines += [f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports + 1 + i}" for i, node in enumerate(self.nodes)]
        every = ",".join(self.nodes)
        lines.append(f"PartitionName=batch Nodes={every} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30")
        lines.append(f"PartitionName=urgent Nodes={every} MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF")
        self.write("slurm.conf", "\n".join(lines) + "\n")
        self.call("munged", "--force", f"--key-file={d}/munge/key", f"--socket={d}/munge/socket", f"--pid-file={d}/munge/pid", f"--log-file={d}/munge/log",
                  f"--seed-file={d}/munge/seed", "--num-threads=2")
        self.call("slurmctld", "-c")
        for node in self.nodes:
            self.start_node(node)
        wait_until(lambda: self.call("sinfo", "-h", "-p", "batch", "-t", "idle", "-o", "%D", check=False).strip() == str(len(self.nodes)), "all nodes idle")

    def stop(self):
        """Ends every process of the cluster, the jobs' first."""
        if os.path.exists(f"{self.folder}/slurmctld.pid"):
            self.call("scancel", "--quiet", "-u", "root", check=False)
            try:
                wait_until(lambda: not self.call("squeue", "-h", check=False).strip(), "no jobs left", timeout=20)
            except AssertionError:
                pass
        for node in self.nodes:
            for pid in self.processes_of(node):
                self.kill(pid, signal.SIGKILL)
        for name in (*(f"slurmd.{node}.pid" for node in self.nodes), "slurmctld.pid", "munge/pid"):
            self.end_daemon(name)
        shutil.rmtree(self.shared_memory, ignore_errors=True)

    def pid_of(self, name):
        try:
            with open(f"{self.folder}/{name}", encoding="utf-8") as file:
                return int(file.read())
        except (OSError, ValueError):
            return 0

    def end_daemon(self, name, how=signal.SIGTERM):
        pid = self.pid_of(name)
        if not pid:
            return
        self.kill(pid, how)
        end = time.monotonic() + 10
        while is_alive(pid) and time.monotonic() < end:
            time.sleep(0.05)
        self.kill(pid, signal.SIGKILL)

    @staticmethod
    def kill(pid, how):
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            pass

    # -- its nodes

    def start_node(self, node):
        self.call("slurmd", "-N", node)

    def processes_of(self, node, job=None, only=None):
        """What runs on a node for jobs: ranks and scripts, by what Slurm put in their environment."""
        found = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            env = environment_of(pid)
            if env.get(b"SLURM_CONF") != self.env["SLURM_CONF"].encode() or env.get(b"SLURMD_NODENAME") != node.encode():
                continue
            if job is not None and env.get(b"SLURM_JOB_ID") != str(job).encode():
                continue
            try:
                program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
            except OSError:
                continue
            if only is None or program == only:
                found.append(pid)
        return found

    def ranks_of(self, job, nodes=None):
        """Ranks of the program, started by srun: their parent is no shell."""
        return [pid for node in nodes or self.nodes for pid in self.processes_of(node, job, only="roformer") if b"SLURM_PROCID" in environment_of(pid)]

    def lose_node(self, node):
        """As when its power is gone: all its processes end at once, and an administrator sets it down."""
        processes = self.processes_of(node)
        steps = {parent_of(pid) for pid in processes} - set(processes) - {0, 1}
        self.kill(self.pid_of(f"slurmd.{node}.pid"), signal.SIGKILL)
        for pid in [*steps, *processes]:
            self.kill(pid, signal.SIGKILL)
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def repair_node(self, node):
        """It comes back without memory of what ran on it."""
        for kind in ("spool", "tmp"):
            shutil.rmtree(f"{self.folder}/{kind}.{node}")
            os.makedirs(f"{self.folder}/{kind}.{node}")
        self.start_node(node)
        wait_until(lambda: self.call("sinfo", "-h", "-n", node, "-p", "batch", "-o", "%t").strip() in ("idle", "mix", "alloc"), f"{node} is back")

    # -- its jobs

    def call(self, *words, check=True, cwd=None, env=None):
        done = subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=60, cwd=cwd,
                              env={**self.env, **(env or {})}, check=False)
        text = done.stdout.decode("utf-8", "replace")
        assert not check or done.returncode == 0, f"{' '.join(map(str, words))}: exit code {done.returncode}\n{text}"
        return text

    def submit(self, script, *arguments, options=(), cwd=None, env=None):
        return int(self.call("sbatch", "--parsable", *options, script, *arguments, cwd=cwd, env=env).strip())

    def job(self, job):
        """Slurm's fields of a job."""
        line = self.call("scontrol", "show", "job", "-o", job, check=False)
        return dict(word.partition("=")[::2] for word in line.split() if "=" in word)

    def state_of(self, job):
        return self.job(job).get("JobState", "")

    def starts_of(self, job):
        return int(self.job(job).get("Restarts", 0)) + 1

"""What the comparisons have in common: reading their options, starting the program, telling how long it will take."""

import argparse
import os
import pathlib
import subprocess
import sys
import time

SOURCE = pathlib.Path(__file__).resolve().parent.parent
OTHER_FAMILY = {"hidden_act": "", "residual_mode": "plain", "init_mode": "fixed"}  # of a model that is not RoFormerV2, beside its name


def words(text):
    return text.split()


def numbers(text):
    if not text.split() or not all(word.isdigit() and int(word) > 0 for word in text.split()):
        raise argparse.ArgumentTypeError(f"expected whole numbers above 0, found \"{text}\"")
    return [int(word) for word in text.split()]


def above_zero(text):
    found = numbers(text)
    if len(found) != 1:
        raise argparse.ArgumentTypeError(f"expected one whole number above 0, found \"{text}\"")
    return found[0]


def zero_or_more(text):
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0: all; found \"{text}\"")
    return int(text)


def rates(text):
    try:
        found = [float(word) for word in text.split()]
    except ValueError:
        found = []
    if not found or not all(rate > 0 for rate in found):
        raise argparse.ArgumentTypeError(f"expected learning rates above 0, found \"{text}\"")
    return found


def rate(text):
    found = rates(text)
    if len(found) != 1:
        raise argparse.ArgumentTypeError(f"expected one learning rate above 0, found \"{text}\"")
    return found[0]


def add_common(parser, output):
    """Where and on what the program runs."""
    parser.add_argument("--ranks", type=above_zero, default=1)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(output))


class Comparison:
    """A name for messages, and the program."""

    def __init__(self, name):
        self.name = name
        self.roformer = os.environ.get("ROFORMER", str(SOURCE / "build/cpu-release/roformer"))

    def refuse(self, text):
        print(f"{self.name}: {text}", file=sys.stderr)
        sys.exit(2)

    def prepare(self, output):
        if not os.access(self.roformer, os.X_OK):
            self.refuse(f"{self.roformer} is not there; build it (README.md) or set ROFORMER")
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.refuse(f"--output: cannot make the folder {output} ({error.strerror})")

    def run(self, ranks, arguments, log):
        """Exit code and text of `roformer ARGUMENTS` on so many ranks; the text goes to the log too."""
        launch = [*os.environ.get("LAUNCH", "mpirun -n").split(), str(ranks)] if ranks > 1 or "LAUNCH" in os.environ else []
        environment = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
                       "OMPI_MCA_hwloc_base_binding_policy": "none", **os.environ}
        done = subprocess.run([*launch, self.roformer, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        with open(log, "a", encoding="utf-8") as out:
            out.write(done.stdout)
        return done.returncode, done.stdout

    def give_up(self, text, what, code):
        """After a run that ended early: its text, which one it was, and its code where that is 2 (refused) or 75 (stopped)."""
        print(f"{text}{self.name}: {what}: exit code {code}" + ("" if code == 2 else "; the same command continues"), file=sys.stderr)
        sys.exit(code if code in (2, 75) else 1)


def rising_and_falling(updates):
    """schedule.lr: up over a tenth of the updates, to zero at their end."""
    return f"[[0,0],[{max(1, updates // 10)},1],[{max(2, updates)},0]]"


def sets(settings):
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


class Progress:
    """Lines like "3/20  what: found  ETA 04:10"."""

    def __init__(self, total):
        self.total, self.made, self.begin = total, 0, time.monotonic()

    def tell(self, what):
        self.made += 1
        rest = int((time.monotonic() - self.begin) * (self.total - self.made) / self.made)
        print(f"{self.made}/{self.total}  {what}  ETA {rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}", flush=True)


def guarded(name, main):
    """An interruption ends with a word and not with a traceback."""
    try:
        main()
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)

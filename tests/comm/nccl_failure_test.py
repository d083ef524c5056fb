"""Failing runs under mpirun: a rank that is lost ends all ranks soon and by name, ranks that disagree and GPUs for two ranks are named.

NCCL_FAILURE: the program (nccl_failure.cpp). Where a rank is lost, mpirun is told not to end the others itself, as some
launchers do not; its own exit code is then sometimes 0, so what the ranks say counts.
"""

import os
import subprocess
import sys
import time
import unittest

PROGRAM = os.environ["NCCL_FAILURE"]
MPIRUN = os.environ.get("MPIEXEC", "mpirun")


def run(ranks, *arguments, launcher_ends_all=False, **environment):
    begin = time.monotonic()
    done = subprocess.run([MPIRUN, "--mca", "orte_abort_on_non_zero_status", str(int(launcher_ends_all)), "-n", str(ranks), PROGRAM, *arguments],
                          env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr, time.monotonic() - begin


class Failures(unittest.TestCase):
    def test_ranks_that_agree_finish(self):
        code, text, _ = run(2)
        self.assertEqual(code, 0, text)
        self.assertEqual(text.count("done"), 2, text)

    def test_a_lost_rank_ends_all_and_is_named(self):
        for lost in (0, 1, 3):
            with self.subTest(lost=lost):
                _, text, seconds = run(4, RF_EMULATOR_LOST_RANK=f"{lost},after=5")
                self.assertLess(seconds, 30, text)
                self.assertIn(f"rank {lost} is lost", text)
                self.assertNotIn("done", text)

    def test_a_rank_that_waits_elsewhere_ends_too(self):
        _, text, seconds = run(2, "blocked", RF_EMULATOR_LOST_RANK="1,after=1")
        self.assertLess(seconds, 30, text)
        self.assertNotIn("done", text)
        self.assertRegex(text, r"rank 1 (of 2 )?is lost")

    def test_other_counts_are_named(self):
        code, text, _ = run(2, "counts", launcher_ends_all=True)
        self.assertNotEqual(code, 0, text)
        self.assertRegex(text, r"ncclAllReduce of [78] elements.* rank [01] ncclAllReduce of [78] elements")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])

#!/usr/bin/python3
"""What runs on a GPU machine, as far as it runs without one: the archive holds every library, the program works from it, the record is
written whatever fails, the profiler's table is read."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import h5py

SOURCE = pathlib.Path(os.environ["RF_SOURCE_DIR"])
BUILD = pathlib.Path(os.environ["RF_BUILD_DIR"])
HERE = SOURCE / "tests" / "device"
sys.path.insert(0, str(HERE))
import record  # noqa: E402

FROM_SYSTEM = re.compile(r"(ld-linux.*|lib(c|m|dl|pthread|rt|resolv|util|cudart|cublasLt|nccl)\.so.*|linux-vdso.*)$")


def bare(*command, code=0, path="/usr/bin:/bin"):
    """Runs with an empty environment."""
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200, env={"PATH": path})
    assert done.returncode == code, f"{command}: exit code {done.returncode}, expected {code}\n{done.stdout}"
    return done.stdout


def test_package(folder):
    """One small unit test stands for all: they load the same libraries."""
    test = BUILD / "tests/kernels/test_kernels_gather"
    subprocess.run([HERE / "pack.sh", folder / "device.tar.xz", test], check=True)
    bare("tar", "-C", folder, "-xf", folder / "device.tar.xz")
    package = folder / "roformer-device"
    for program in (package / "bin").iterdir():
        for name, path in re.findall(r"^\s*(\S+) => (\S*)", bare("ldd", program), re.M):
            assert path != "not", f"{program.name} lacks {name}"
            assert FROM_SYSTEM.match(name) or pathlib.Path(path).is_relative_to(package), f"{program.name} takes {name} from {path}"
    return package


PROFILE = '''==PROF== Connected to process 1
update 1 s
"ID","Process ID","Kernel Name","gpu__time_duration.sum","dram__bytes_read.sum","dram__bytes_write.sum","sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed"
"","","","ns","byte","byte","%"
"0","1","void rf::add_norm_kernel<rf::bfloat16, 4, 1, 0>(rf::Forward<T1>)","1,000","3,000","1000","0"
"1","1","rf::judge_gradient_kernel(const double *, int, double, double *)","2000","10","10","0"
"2","1","void rf::add_norm_kernel<rf::bfloat16, 4, 1, 0>(rf::Forward<T1>)","1000","3000","1000","0"
"3","1","nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT","4000","3000","1000","72.5"
"4","1","rf::judge_gradient_kernel(const double *, int, double, double *)","2000","10","10","0"
'''


def stand_in(folder, name, text):
    """A program of that name that prints `text`, a Python expression over its arguments."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/python3\nimport sys\nprint({text})\n")
    (folder / name).chmod(0o755)


def test_rehearsal(package, folder):
    """On the CPU with a tiny model and stand-ins for the tools: what works is recorded, what fails is recorded as failed."""
    tools = folder / "tools"
    stand_in(tools, "ncu", repr(PROFILE))
    stand_in(tools, "compute-sanitizer", "f'========= ERROR SUMMARY: {int(\"racecheck\" in sys.argv)} errors'")
    text = bare(sys.executable, package / "device/record.py", "--package", package, folder / "record", "--device", "cpu", "--small", "--parts",
                "machine,tests,bench,kernels,families,sanitize", code=1, path=f"{tools}:/usr/bin:/bin")
    with h5py.File(folder / "record/record.h5") as file:
        rows = lambda table: dict(zip(file[f"{table}/name"].asstr()[:], file[f"{table}/status"].asstr()[:]))
        status = rows("parts")
        assert "need one" in status.pop("machine"), text
        assert set(status) == {"tests", "bench", "kernels", "families", "sanitize"} and set(status.values()) == {"ok"}, text
        assert set(rows("tests").values()) == {"ok"} and file["tests/cases"][0] > 0, text
        assert set(rows("bench").values()) == {"ok"} and list(file["bench/length"][:4]) == [512, 512, 128, 128] and all(file["bench/tokens"][:4] > 0), text
        assert file["bench/step"][4] >= 0, text
        assert list(file["kernels/kernel"].asstr()[:]) == ["nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT", "judge_gradient", "add_norm"], text
        assert abs(file["kernels/bandwidth"][2] - 4) < 1e-9 and abs(sum(file["kernels/share"][:]) - 1) < 1e-9, text
        assert list(file["families/arm"].asstr()[:]) == ["roberta", "roformer_v2"] and list(file["families/rounds"][:]) == [2, 2] and file["families/ratio"][1] > 0, text
        checks = rows("sanitize")
        assert checks == {name: "ok" if "racecheck" not in name else "SUMMARY: 1 errors" for name in checks} and len(checks) == 3, text
        assert len(file["goals/row"]) == len(record.TARGETS)
    assert "M1" in (folder / "record/record.txt").read_text()


def test_profile():
    rows = record.whole_update(record.profiled(PROFILE))
    assert [r["name"] for r in rows] == ["add_norm", "nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT", "judge_gradient"], rows
    assert rows[0]["seconds"] == 1e-6 and rows[0]["bytes"] == 4000 and rows[1]["tensor"] == 72.5, rows
    for text in ("==ERROR== no permission", PROFILE.rsplit('"4"', 1)[0]):
        try:
            record.whole_update(record.profiled(text))
        except record.Failed:
            continue
        raise AssertionError(f"read as a whole update:\n{text}")


def test_table(folder):
    """Rows with and without a column: columns stay of equal length."""
    table = record.Table()
    table.add(name="a", seconds__s=1)
    table.add(name="b", rate__1_per_s=2.5)
    record.write_h5(folder / "table.h5", {"x": 1}, {"t": table})
    with h5py.File(folder / "table.h5") as file:
        assert file["t/rate"].attrs["units"] == "1/s" and file["t/rate"][1] == 2.5 and file["t/rate"][0] != file["t/rate"][0]
        assert file["t/seconds"][0] == 1 and len(file["t/seconds"]) == 2


def main():
    if not shutil.which("patchelf"):
        print("skipped: patchelf is missing (env/debian.sh installs it)")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="roformer-test-") as name:
        folder = pathlib.Path(name)
        test_profile()
        test_table(folder)
        test_rehearsal(test_package(folder), folder)
    print("ok")


if __name__ == "__main__":
    main()

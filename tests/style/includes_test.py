#!/usr/bin/python3
"""Dependencies point down: every #include of src and kernels against the table of layers, which stands here."""

import os
import re
import sys

# Folder: what it may include besides itself and what those may include, and which libraries.
LAYERS = {
    "core": ([], ["OpenMP", "CUDA"]),
    "kernels": (["core"], ["oneDNN", "CUDA"]),
    "comm": (["core"], ["MPI", "CUDA"]),
    "io": (["core", "comm"], ["HDF5", "Boost", "xxHash"]),
    "text": (["core", "io"], ["ICU", "Boost"]),
    "data": (["text", "io", "comm"], ["Boost"]),
    "params": (["kernels", "comm", "io"], []),
    "model": (["params", "kernels", "comm"], ["Boost"]),
    "tasks": (["model", "data"], ["Boost"]),
    "optim": (["params", "kernels", "comm"], ["Boost"]),
    "train": (["optim", "model", "tasks", "data"], ["Boost"]),
    "convert": (["train"], ["Boost"]),
    "app": (["convert"], ["Boost", "MPI"]),
}
# The first words of a library's headers. What is in none of them belongs to the language, POSIX or the compiler.
LIBRARIES = {
    "OpenMP": r"omp\.h", "oneDNN": r"oneapi/|dnnl", "MPI": r"mpi\.h", "HDF5": r"hdf5|H5", "Boost": r"boost/", "xxHash": r"xxhash",
    "ICU": r"unicode/", "CUDA": r"cuda|cublas|nccl",
}
# Only a CUDA build has its headers: what every build compiles may not include them.
CUDA_ONLY = ("core/cuda.hpp", "core/cuda.cpp", "comm/nccl_communicator.cpp", "kernels/gemm_cublaslt.cpp")
# Of the device primitives there are two: the include path chooses the GPU's or the emulator's.
CHOSEN_BY_PATH = "device.cuh"
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')


def reach(folder):
    """The folders that a folder may include."""
    seen, todo = set(), [folder]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += LAYERS[name][0]
    return seen


def order_problems():
    """The table itself: a layer stands below all that use it."""
    names = list(LAYERS)
    for name, (uses, _) in LAYERS.items():
        for other in uses:
            if names.index(other) >= names.index(name):
                yield f"the table lets {name} use {other}, which stands above it"


def own_header(path, text_of):
    """The header that a source file implements, or None: x.cpp implements x.hpp."""
    stem = path.rsplit(".", 1)[0]
    return f"{stem}.hpp" if f"{stem}.hpp" in text_of else None


def for_cuda_only(path):
    return path in CUDA_ONLY or path.endswith((".cu", ".cuh"))


def problems(text_of):
    """text_of: content of every source file, by its path as an #include names it ("core/log.hpp")."""
    yield from order_problems()
    for path, text in sorted(text_of.items()):
        folder = path.split("/")[0]
        if folder not in LAYERS:
            yield f"{path}: the folder {folder} is in no layer of the table"
            continue
        allowed, first = reach(folder), True
        for number, line in enumerate(text.splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            where, quoted, angled = f"{path}:{number}", match.group(1), match.group(2)
            own = own_header(path, text_of) if path.endswith((".cpp", ".cu")) else None
            if first and own and quoted != own:
                yield f"{where}: the first include must be its own header \"{own}\""
            first = False
            if quoted:
                target = quoted.split("/")[0]
                if quoted == CHOSEN_BY_PATH:
                    if not for_cuda_only(path):
                        yield f"{where}: only kernels of a GPU use {quoted}"
                elif quoted not in text_of:
                    yield f"{where}: \"{quoted}\" is no file of this tree (includes name files from the root of their library)"
                elif target not in allowed:
                    yield f"{where}: {folder} may not use {target} (\"{quoted}\")"
                continue
            if angled in text_of:
                yield f"{where}: <{angled}> is a file of this tree and belongs in quotes"
            for library, pattern in LIBRARIES.items():
                if re.match(pattern, angled) and library not in LAYERS[folder][1]:
                    yield f"{where}: {folder} may not use {library} (<{angled}>)"
                elif re.match(pattern, angled) and library == "CUDA" and not for_cuda_only(path):
                    yield f"{where}: <{angled}> in a file that every build compiles"
        if path.endswith(".hpp") and not text.startswith("#pragma once"):
            yield f"{path}: a header starts with #pragma once"


def read_tree(root):
    text_of = {}
    for top in ("src", "kernels"):
        for base, _, names in os.walk(os.path.join(root, top)):
            for name in names:
                if name.endswith((".hpp", ".cpp", ".inc", ".cu", ".cuh")):
                    full = os.path.join(base, name)
                    path = os.path.relpath(full, os.path.join(root, "src") if top == "src" else root)
                    with open(full, encoding="utf-8") as file:
                        text_of[path] = file.read()
    return text_of


def check_the_checker():
    """Each rule must find its own violation."""
    good = {"core/a.hpp": "#pragma once\n", "comm/b.hpp": "#pragma once\n", "comm/b.cpp": '#include "comm/b.hpp"\n#include "core/a.hpp"\n'}
    assert not list(problems(good)), list(problems(good))
    gpu = {"core/cuda.hpp": "#pragma once\n#include <cuda_runtime_api.h>\n", "kernels/x.cu": '#include "device.cuh"\n#include <cuda_bf16.h>\n'}
    assert not list(problems({**good, **gpu})), list(problems({**good, **gpu}))
    for path, text, expected in (
            ("core/a.hpp", '#pragma once\n#include "comm/b.hpp"\n', "core may not use comm"),
            ("comm/c.cpp", "#include <hdf5.h>\n", "comm may not use HDF5"),
            ("comm/b.cpp", '#include "core/a.hpp"\n#include "comm/b.hpp"\n', "own header"),
            ("comm/c.cpp", '#include "b.hpp"\n', "no file of this tree"),
            ("comm/c.cpp", "#include <core/a.hpp>\n", "belongs in quotes"),
            ("core/c.cpp", "#include <cuda_runtime_api.h>\n", "every build"),
            ("io/c.cpp", "#include <cuda_runtime_api.h>\n", "io may not use CUDA"),
            ("core/c.cpp", '#include "device.cuh"\n', "only kernels of a GPU"),
            ("misc/c.cpp", "", "in no layer"),
            ("core/c.hpp", "int x;\n", "#pragma once")):
        found = list(problems({**good, path: text}))
        assert any(expected in problem for problem in found), (expected, found)


def main():
    check_the_checker()
    root = os.environ.get("RF_SOURCE_DIR") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    text_of = read_tree(root)
    assert len(text_of) > 100, f"only {len(text_of)} source files found below {root}"
    found = list(problems(text_of))
    print("\n".join(found) or f"{len(text_of)} files: every include points down")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()

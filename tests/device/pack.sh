#!/usr/bin/env bash
# Everything that run.sh needs on a machine with a GPU, in one archive: programs and unit tests of build/gpu-release, stripped,
# with the shared libraries they load (not those of the C library and of CUDA: the machine has its own), model inputs, scripts.
#   tests/device/pack.sh [ARCHIVE] [TEST ...]     ARCHIVE defaults to build/gpu-release/device.tar.xz, tests to those that are built
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

build=build/gpu-release
archive=$build/device.tar.xz
if (($#)); then
  archive=$1
  shift
fi
limit=$((64 << 20))  # bytes
command -v patchelf >/dev/null || { echo "pack.sh: patchelf is missing (env/debian.sh installs it)" >&2; exit 1; }
[[ -x $build/roformer ]] || { echo "pack.sh: $build/roformer is missing: cmake --preset gpu-release && cmake --build --preset gpu-release" >&2; exit 1; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
top=$folder/roformer-device
mkdir -p "$top"/{bin,lib,device,peers,inputs,jobs,postprocess}
cp -r inputs/model "$top/inputs/"
cp tests/device/{run.sh,record.py,ceilings.py} "$top/device/"
cp tests/bench/peers/{run.py,peer_torch.py} "$top/peers/"
cp jobs/{compare_speed.sh,compare_speed.py,comparison.py} "$top/jobs/"
cp postprocess/bench_file.py "$top/postprocess/"
cp "$build/roformer" "$top/bin/"
tests=("$@")
if ((${#tests[@]} == 0)); then
  # With the label gpu: the same sources run on the CPU, the emulator and a GPU.
  mapfile -t tests < <(ctest --test-dir "$build" --label-regex '^gpu$' --show-only=json-v1 |
    /usr/bin/python3 -c 'import json, sys; [print(t["command"][0]) for t in json.load(sys.stdin)["tests"] if "command" in t]')
fi
packed=()
for test in "${tests[@]}"; do
  if [[ -x $test ]]; then
    cp "$test" "$top/bin/"
    packed+=("$(basename "$test")")
  else
    echo "pack.sh: ${test#"$PWD/"} is not built and left out" >&2
  fi
done
strip "$top"/bin/*

# What stays behind: the C library's parts, and CUDA's (run.sh links those of the machine).
own='^(ld-linux.*|lib(c|m|dl|pthread|rt|resolv|util)\.so.*|lib(cudart|cublasLt|cublas|nccl|cuda)\.so.*|linux-vdso.*)$'
ldd "$top"/bin/* | awk '$2 == "=>" && $3 ~ /^\// {print $1, $3} $2 == "=>" && $3 == "not" {print "pack.sh: not found: " $1 > "/dev/stderr"; exit 1}' |
  sort -u | while read -r name path; do
  [[ $name =~ $own ]] || cp -L "$path" "$top/lib/$name"
done
strip --strip-unneeded "$top"/lib/*
# Everything is looked for beside itself first, and in none of this machine's folders.
patchelf --set-rpath '$ORIGIN/../lib' "$top"/bin/*
patchelf --set-rpath '$ORIGIN' "$top"/lib/*

{
  echo "commit: $(git describe --always --dirty)"
  echo "compiler: $("${CUDACXX:-/usr/local/cuda/bin/nvcc}" --version | tail -n 2 | head -n 1)"
  echo "tests: ${packed[*]}"
} > "$top/build.txt"

# Test programs hold the same kernels again and again: a wide window packs them once, and there is little else to win.
tar -C "$folder" -cf - roformer-device | xz -T1 --lzma2=preset=0,dict=256MiB > "$archive.partial"
bytes=$(stat -c %s "$archive.partial")
if ((bytes > limit)); then
  rm "$archive.partial"
  echo "pack.sh: the archive would have $bytes bytes, more than $limit: name fewer tests" >&2
  exit 1
fi
mv "$archive.partial" "$archive"
echo "$archive: $bytes bytes, ${#packed[@]} unit tests, $(find "$top/lib" -type f | wc -l) libraries"

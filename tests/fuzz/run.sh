#!/usr/bin/env bash
# Builds the fuzz targets (preset `fuzz`, clang 19) and lets each run for a while: over the seeds, the inputs that once failed, and what earlier runs
# found worth keeping in build/fuzz/corpus. Ends with 1 at the first finding, whose input then lies in build/fuzz/findings; with 77 where
# clang is absent.
#
#   tests/fuzz/run.sh [seconds a target, default 600] [target ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

seconds=${1:-600}
shift || true
targets=("$@")
((${#targets[@]})) || targets=(json text vocabulary task corpus checkpoint results convert_safetensors convert_torch convert_tf convert_keras)

if ! command -v clang++-19 >/dev/null; then
  echo "tests/fuzz/run.sh: clang++-19 is not installed (apt-get install clang-19 libclang-rt-19-dev libomp-19-dev)" >&2
  exit 77
fi
[[ -f build/fuzz/build.ninja ]] || cmake --preset fuzz
cmake --build --preset fuzz -- "${targets[@]/#/fuzz_}"

mkdir -p build/fuzz/findings
printf '| target | executions | seconds | executions/s | coverage (edges) | findings |\n| --- | --- | --- | --- | --- | --- |\n'
status=0
for target in "${targets[@]}"; do
  corpus=build/fuzz/corpus/$target log=build/fuzz/$target.log
  mkdir -p "$corpus"
  folders=("$corpus")
  for folder in "tests/fuzz/seeds/$target" "tests/fuzz/regressions/$target"; do [[ -d $folder ]] && folders+=("$folder"); done
  found=0
  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=0 UBSAN_OPTIONS=print_stacktrace=1 "build/fuzz/tests/fuzz/fuzz_$target" "${folders[@]}" \
    -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=1024 -max_len=4096 -print_final_stats=1 \
    -artifact_prefix="build/fuzz/findings/$target-" >"$log" 2>&1 || found=1 status=1
  executions=$(grep -o 'stat::number_of_executed_units: *[0-9]*' "$log" | grep -o '[0-9]*$' || echo '?')
  rate=$(grep -o 'stat::average_exec_per_sec: *[0-9]*' "$log" | grep -o '[0-9]*$' || echo '?')
  edges=$(grep -o 'cov: [0-9]*' "$log" | tail -1 | grep -o '[0-9]*' || echo '?')
  printf '| %s | %s | %s | %s | %s | %s |\n' "$target" "$executions" "$seconds" "$rate" "$edges" "$found"
  ((found == 0)) || tail -40 "$log" >&2
done
exit "$status"

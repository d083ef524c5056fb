#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test that needs no GPU; ctest's summary comes last. Arguments go to
# ctest (for example: tests/run.sh -R kernels). Works from any folder, any number of times.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

env/debian.sh --tests
cmake --preset cpu-release
cmake --build --preset cpu-release
exec ctest --test-dir build/cpu-release --output-on-failure --parallel 2 --label-exclude bench "$@"

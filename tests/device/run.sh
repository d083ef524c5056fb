#!/usr/bin/env bash
# On a machine with a GPU, from an unpacked archive of pack.sh: every part of the record, or some. Needs python3 with h5py (and torch
# for the parts machine and peers); ncu and compute-sanitizer for the parts kernels and sanitize.
#   tar xf device.tar.xz && roformer-device/device/run.sh OUTPUT [--parts machine,tests,…] [--minutes 9.5] [--device cuda|cpu]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec python3 "$here/record.py" --package "$here/.." "$@"

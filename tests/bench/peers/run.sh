#!/usr/bin/env bash
# The training step beside PyTorch's, run alternately on this machine: tests/bench/peers/run.sh [FOLDER] [--rounds 7] [--threads N] ...
# FOLDER (default build/peers) gets a Python environment of its own, made once, and peers.h5.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
folder=$source_dir/build/peers
if [[ $# -gt 0 && $1 != --* ]]; then
  folder=$1
  shift
fi
mkdir -p "$folder"
python=$folder/venv/bin/python
if ! "$python" -c 'import torch, numpy, h5py' 2>/dev/null; then
  echo "making a Python environment with PyTorch in $folder/venv" >&2
  python3 -m venv "$folder/venv"
  "$python" -m pip install --quiet torch numpy h5py
fi
exec "$python" "$source_dir/tests/bench/peers/run.py" --folder "$folder" "$@"

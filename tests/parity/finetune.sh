#!/usr/bin/env bash
# Fine-tuning beside PyTorch, by hand: tests/parity/finetune.sh DATA [FOLDER] [CHECKPOINT]
# DATA holds tnews/, cluener/ and vocab/. One epoch of 2000 rows of TNEWS and of 500 rows of CLUENER, dropout and corruption off, from
# CHECKPOINT or, without one, from random weights of inputs/model/tiny.json; then finetune_replay.py. FOLDER (default build/parity) gets the
# cut tasks, the runs and, once, a Python environment. EPOCHS=10 tests/parity/finetune.sh … trains longer; PYTHON names another interpreter.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
data=${1:?expected the folder of the data sets}
folder=${2:-$source_dir/build/parity}
checkpoint=${3:-}
roformer=${ROFORMER:-$source_dir/build/cpu-release/roformer}
python=${PYTHON:-$folder/bin/python}
[[ -x $roformer ]] || { echo "$roformer is missing: cmake --preset cpu-release && cmake --build --preset cpu-release" >&2; exit 2; }
mkdir -p "$folder"
if ! "$python" -c 'import torch, numpy, h5py' 2>/dev/null; then
  echo "making a Python environment with PyTorch in $folder" >&2
  python3 -m venv "$folder"
  python=$folder/bin/python
  "$python" -m pip install --quiet torch numpy h5py
fi

off='"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0'
if [[ -n $checkpoint ]]; then
  start=(--set "checkpoint=$checkpoint" --set "model={$off}")
else
  start=(--set "vocab=$data/vocab/roformer_v2_char_vocab.txt" --set "model={\"file\": \"$source_dir/inputs/model/tiny.json\", $off}")
fi
failed=0
for cut in "tnews 2000 2000" "cluener 500 2000"; do
  read -r name train dev <<<"$cut"
  run=$folder/$name
  rm -rf "$run"
  mkdir -p "$run"
  "$python" "$source_dir/tests/parity/cut_task.py" "$source_dir/inputs/tasks/$name.json" "$data" "$run" --train "$train" --dev "$dev"
  "$roformer" finetune --set "task=$run/$name.json" --set "output=$run/output" --set "epochs=${EPOCHS:-1}" --set dump_batches=1000000 \
    --set dtype=f32 "${start[@]}"
  "$python" "$source_dir/tests/parity/finetune_replay.py" "$run/output" "$run/$name.json" || failed=1
done
exit $failed

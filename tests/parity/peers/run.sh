#!/usr/bin/env bash
# Other programs load what convert wrote and compute the same; convert loads what they wrote. Run from the repository's root:
#   tests/parity/peers/run.sh [path of roformer]
# PYTORCH and KERAS name the python of an environment that has the packages of README.md; without them both are made below
# build/peers/convert (some 3 GB). LARGE=1 adds the shape of base.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
roformer=$(realpath "${1:-$root/build/cpu-release/roformer}")
[[ -x $roformer ]] || { echo "run.sh: $roformer is no program; build it or name it" >&2; exit 2; }
venvs=$root/build/peers/convert
if [[ -z ${PYTORCH:-} ]]; then
  PYTORCH=$venvs/pytorch/bin/python
  if [[ ! -e $venvs/pytorch/complete ]]; then
    python3 -m venv "$venvs/pytorch"
    "$venvs/pytorch/bin/pip" -q install transformers==4.30.2 "numpy<2" h5py safetensors torch
    "$venvs/pytorch/bin/pip" -q install --no-deps roformer==0.4.3
    touch "$venvs/pytorch/complete"
  fi
fi
if [[ -z ${KERAS:-} ]]; then
  KERAS=$venvs/keras/bin/python
  if [[ ! -e $venvs/keras/complete ]]; then
    python3 -m venv "$venvs/keras"
    "$venvs/keras/bin/pip" -q install tensorflow-cpu==2.15.1
    "$venvs/keras/bin/pip" -q install --no-deps bert4keras==0.11.5
    touch "$venvs/keras/complete"
  fi
fi
export PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
lines=$here/sentences.txt
encode() { "$roformer" encode --checkpoint "$1" --dtype f32 --out "$2" < "$lines" > /dev/null; }

# A model of ours in every form, loaded by each peer.
ours_to_peers() {  # checkpoint
  rm -rf hf hf_zip tf keras ours.h5
  encode "$1" ours.h5
  for weights in safetensors zip; do
    "$roformer" convert --from rf --to hf --weights $weights "$1" hf_$weights
    "$PYTORCH" "$here/pytorch.py" outputs hf_$weights "$lines" theirs.h5
    echo "PyTorch, $weights:"
    "$PYTORCH" "$here/compare.py" ours.h5 "$1" theirs.h5
  done
  "$roformer" convert --from rf --to tf "$1" tf
  "$roformer" convert --from rf --to keras-h5 "$1" keras
  for form in tf keras; do
    "$KERAS" "$here/keras_peer.py" $form $form "$lines" theirs.h5
    echo "bert4keras, $form:"
    "$PYTORCH" "$here/compare.py" ours.h5 "$1" theirs.h5
  done
  rm -rf hf_safetensors hf_zip tf keras
}

# What they write, loaded by us.
"$PYTORCH" "$here/pytorch.py" write written
"$KERAS" "$here/keras_peer.py" write written
for pair in hf:hf hf:hf_legacy hf:hf_safetensors tf:tf keras-h5:keras; do
  name=${pair#*:}
  "$roformer" convert --from "${pair%%:*}" --to rf "written/$name" "from_$name"
  encode "from_$name" ours.h5
  for peer in pytorch bert4keras; do
    echo "$name, written by its peer, against $peer:"
    "$PYTORCH" "$here/compare.py" ours.h5 "from_$name" "written/expected_$peer.h5"
  done
done

# The comparators.
"$PYTORCH" "$here/families_peer.py" write families
head -8 "$lines" > few.txt
for family in bert roformer; do
  "$roformer" convert --from hf --to rf --family $family families/$family from_$family
  "$roformer" encode --checkpoint from_$family --dtype f32 --out ours.h5 < few.txt > /dev/null
  echo "$family, written by transformers:"
  "$PYTORCH" "$here/families_peer.py" compare ours.h5 from_$family families/expected_$family.h5
  for weights in safetensors zip; do
    "$roformer" convert --from rf --to hf --weights $weights from_$family ${family}_$weights
    "$PYTORCH" "$here/families_peer.py" outputs ${family}_$weights few.txt theirs.h5
    echo "$family, $weights, read by transformers:"
    "$PYTORCH" "$here/families_peer.py" compare ours.h5 from_$family theirs.h5
  done
done

# Random weights of real sizes, with a vocabulary of the sentences' characters.
python3 - "$lines" <<'PYTHON'
import sys
text = open(sys.argv[1], encoding="utf-8").read().lower()
tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + sorted(set(text) - {"\n"}) + ["##" + c for c in sorted(set(text)) if c.isascii() and c.isalnum()]
open("vocab.txt", "w", encoding="utf-8").write("\n".join(tokens + [f"[unused{i}]" for i in range(12000 - len(tokens))]) + "\n")
PYTHON
"$roformer" build-corpus --set text="$lines" --set vocab=vocab.txt --set output=corpus --set segmenter.name=none > /dev/null
for size in small ${LARGE:+base}; do
  "$roformer" pretrain --set model.file="$root/inputs/model/$size.json" --set model.residual_mode=plain --set corpus=corpus --set vocab=vocab.txt --set output=$size --set steps=0 \
    --set batch.sequences=2 --set batch.lanes=1 --set batch.max_length=32 > /dev/null
  echo "== $size"
  ours_to_peers $size
done

# A classifier.
python3 - "$lines" <<'PYTHON'
import json, sys
lines = open(sys.argv[1], encoding="utf-8").read().splitlines()
with open("own.jsonl", "w", encoding="utf-8") as out:
    for i, line in enumerate(lines):
        out.write(json.dumps({"text": line, "label": "abc"[i % 3]}) + "\n")
json.dump({"name": "own", "kind": "classify", "train": "own.jsonl", "dev": "own.jsonl", "input": ["{text}"], "label": "{label}", "labels": ["a", "b", "c"], "max_length": 64}, open("own.json", "w"))
PYTHON
"$roformer" finetune --set task=own.json --set checkpoint=small --set output=tuned --set epochs=2 --set batch.sequences=4 --set optimizer.lr=1e-3 > /dev/null
"$roformer" convert --from rf --to hf tuned tuned_hf
"$PYTORCH" "$here/pytorch.py" classify tuned_hf "$lines" theirs.h5
encode tuned ours.h5
"$PYTORCH" "$here/compare.py" --logits own tuned ours.h5 theirs.h5
echo "all agree"

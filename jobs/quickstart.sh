#!/usr/bin/env bash
# From a bare Debian 12 to a trained small RoFormerV2, fine-tuned on a small task, and its reports, on the CPU, in about ten minutes after
# the install.
#   jobs/quickstart.sh [TEXT ...]     own text (.txt, .jsonl; folders) instead of text from distribution packages
# Everything lands in runs/quickstart. Run it again to continue after an interruption, or to be told that all is done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=runs/quickstart
roformer=$PWD/build/cpu-release/roformer
packages=(fortunes-zh manpages-zh libreoffice-help-zh-cn debian-reference-zh-cn)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none

say() { printf '\n== %s\n' "$*"; }
# Runs roformer on two ranks. After Ctrl-C mpirun leaves its ranks a second to live, too little for a checkpoint on a slow machine. In a
# session of its own it does not see the key; SIGUSR1 it passes on, and waits.
train() {
  setsid mpirun -n 2 "$roformer" "$@" &
  local run=$! stopped=0 code=0
  trap 'stopped=1; kill -USR1 "$run"' INT TERM
  wait "$run" || code=$?
  while kill -0 "$run" 2>/dev/null; do code=0; wait "$run" || code=$?; done
  trap interrupted INT TERM
  ((stopped == 0)) || interrupted
  ((code == 0)) || exit "$code"
}
interrupted() { echo; echo "quickstart: interrupted; the same command continues from here"; exit 130; }
trap interrupted INT TERM

say "1/8 packages"
env/debian.sh

say "2/8 build"
[[ -f build/cpu-release/build.ninja ]] || cmake --preset cpu-release >/dev/null
cmake --build --preset cpu-release --target roformer | tail -n 1

say "3/8 text"
mkdir -p "$work"
if (($#)); then
  text=$(printf '"%s",' "$@"); text="[${text%,}]"
else
  text="$work/text.jsonl"
  if [[ ! -s $work/text.jsonl || ! -s $work/passages.jsonl ]]; then
    mkdir -p "$work/packages" "$work/unpacked"
    for package in "${packages[@]}"; do
      if ! compgen -G "$work/packages/${package}_*.deb" >/dev/null; then
        (cd "$work/packages" && apt-get download -qq -o APT::Sandbox::User=root "$package") ||
          { echo "quickstart: $package could not be fetched (no network?); give own text: jobs/quickstart.sh FILE" >&2; exit 1; }
      fi
      dpkg -x "$work"/packages/"${package}"_*.deb "$work/unpacked"
    done
    /usr/bin/python3 jobs/quickstart_text.py "$work/unpacked" "$work/text.jsonl" "$work/passages.jsonl"
    rm -rf "$work/unpacked"
  else
    echo "there: $work/text.jsonl"
  fi
fi

say "4/8 vocabulary and corpus"
[[ -s $work/vocab.txt ]] || "$roformer" build-vocab --set "text=$text" --set "output=$work/vocab.txt" --set size=8000
mpirun -n 2 "$roformer" build-corpus --set "text=$text" --set "vocab=$work/vocab.txt" --set "output=$work/corpus"

say "5/8 pre-training: a RoFormerV2 of 4 layers, two ranks"
train pretrain inputs/pretrain_quickstart.json

say "6/8 what it learned: the five likeliest fillings of each [MASK]"
printf '%s\n' '您可以使用此[MASK]令来打开文件。' '如果文件不[MASK]在，则返回错误。' '在单元[MASK]中输入公式。' |
  "$roformer" fill-mask --checkpoint "$work/pretrain" --top 5 | tee "$work/pretrain/examples.txt"

say "7/8 a task: which of six books a paragraph comes from"
if (($#)); then
  echo "left out: it is made from the packages' text"
else
  train finetune inputs/finetune_quickstart.json
  /usr/bin/python3 - "$work/books" <<'END'
import h5py, json, sys
with open(sys.argv[1] + "/metrics.json") as file, h5py.File(sys.argv[1] + "/results.h5") as results:
    accuracy, right = json.load(file)["best"]["metrics"]["accuracy"], list(results["predictions/books/label"][:])
most = max(map(right.count, right)) / len(right)
print(f"accuracy on {len(right)} held-out paragraphs {100 * accuracy:.1f} %; always the most frequent book: {100 * most:.1f} %")
END
  printf '%s\n' '春眠不觉晓，处处闻啼鸟。' '返回单元格区域内数值的平均值。' '此函数成功时返回零，出错时返回 -1。' |
    "$roformer" predict --checkpoint "$work/books"
fi

say "8/8 reports"
for run in pretrain books; do
  [[ ! -f $work/$run/results.h5 ]] || echo "done: $PWD/$(/usr/bin/python3 postprocess/report.py "$work/$run")"
done

#!/usr/bin/env bash
# From a bare Debian 12 to a small RoFormerV2, pre-trained and fine-tuned, and its report, on the CPU, in about ten minutes after the install.
#   jobs/quickstart.sh [TEXT ...]     own text (.txt, .jsonl; folders) instead of text from distribution packages
# Everything lands in runs/quickstart. Run it again to continue after an interruption, or to be told that all is done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=runs/quickstart
roformer=$PWD/build/cpu-release/roformer
packages=(fortunes-zh manpages-zh libreoffice-help-zh-cn debian-reference-zh-cn)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none

say() { printf '\n== %s\n' "$*"; }
interrupted() { echo; echo "quickstart: interrupted; the same command continues from here"; exit 130; }
trap interrupted INT TERM

# A training command on two ranks. After Ctrl-C mpirun leaves its ranks a second to live, too little for a checkpoint on a slow
# machine. In a session of its own it does not see the key; SIGUSR1 it passes on, and waits.
train() {
  local stopped=0 code=0
  setsid mpirun -n 2 "$roformer" "$@" &
  local run=$!
  trap 'stopped=1; kill -USR1 "$run"' INT TERM
  wait "$run" || code=$?
  while kill -0 "$run" 2>/dev/null; do code=0; wait "$run" || code=$?; done
  trap interrupted INT TERM
  ((stopped == 0)) || interrupted
  ((code == 0)) || exit "$code"
}

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
  if [[ ! -s $work/text.jsonl ]]; then
    mkdir -p "$work/packages" "$work/unpacked"
    for package in "${packages[@]}"; do
      if ! compgen -G "$work/packages/${package}_*.deb" >/dev/null; then
        (cd "$work/packages" && apt-get download -qq -o APT::Sandbox::User=root "$package") ||
          { echo "quickstart: $package could not be fetched (no network?); give own text: jobs/quickstart.sh FILE" >&2; exit 1; }
      fi
      dpkg -x "$work"/packages/"${package}"_*.deb "$work/unpacked"
    done
    /usr/bin/python3 jobs/quickstart_text.py "$work/unpacked" "$work/text.jsonl"
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

say "7/8 fine-tuning: which manual, or the poems, a passage is from"
runs=("$work/pretrain")
if (($#)); then
  echo "left out: own text does not say what to tell apart (inputs/tasks/README.md shows a task of your own)"
else
  train finetune inputs/finetune_quickstart.json
  lines=('在单元格中输入公式，即可计算所选区域的平均值。' '打印每个文件的前十行到标准输出。' '夜雨敲窗人未眠，一江春水送归船。')
  printf '%s\n' "${lines[@]}" | "$roformer" predict --checkpoint "$work/finetune" |
    sed -E 's/.*"label": ?"([^"]*)", ?"probability": ?([^,}]*)[,}].*/\t\1 \2/' |
    paste -d '\n' <(printf '%s\n' "${lines[@]}") - | tee "$work/finetune/examples.txt"
  runs+=("$work/finetune")
fi

say "8/8 report"
/usr/bin/python3 postprocess/report.py "${runs[@]}" -o "$work/report.html"
echo "done: $PWD/$work/report.html"

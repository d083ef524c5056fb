#!/usr/bin/env bash
# What simplification costs and what supervision wins back: RoFormer and RoFormerV2 pre-trained by masking alone, and RoFormerV2 by masking and then many tasks, its tasks' gradients
# normalised or not, all with the same budget; each fine-tuned on tasks of CLUE, as one page.
#   jobs/compare_phases.sh --corpus FOLDER --vocab vocab.txt --data FOLDER [--model inputs/model/small.json] [--updates 2000] [--supervised 1000] [--sequences 64] [--length 128]
#                          [--rate 1e-3] [--supervised-rate RATE] [--mix "tnews afqmc …"|all] [--tasks "tnews afqmc cluewsc2020 csl"] [--epochs 3] [--rows 0] [--dev-rows 0]
#                          [--tuning-rate 5e-4] [--seeds "1 2 3"] [--ranks 1] [--threads 0] [--device auto] [--set key.path=value ...] [--output runs/compare_phases]
# --updates of masking, then --supervised of tasks or of masking, each of --sequences x --length tokens at most. --data holds the labelled sets; --mix and --tasks are names of
# inputs/tasks or task files, of all those that fit the length are taken. --supervised-rate is --rate without a word. --rows and --dev-rows: of a fine-tuning, 0: all. --set goes to
# the runs of `roformer pretrain`, masking.* and evaluation.* to those of `roformer multitask` too. Half of the mix is masking.
# Each run has a folder of its own, so the same command continues where it was interrupted, and more --seeds or --tasks add to what is there. Of a fine-tuning only the figures are
# kept. The page is made anew from what is stored by
#   postprocess/compare_phases.py OUTPUT
# LAUNCH="srun --mpi=pmix -n" starts the ranks by other means than mpirun, ROFORMER names another program.
set -euo pipefail
[[ ${1:-} != --help && ${1:-} != -h ]] || { sed -n '2,/^set /{/^#/s/^# \?//p}' "${BASH_SOURCE[0]}"; exit 0; }
exec /usr/bin/python3 "$(dirname "${BASH_SOURCE[0]}")/compare_phases.py" "$@"

#!/usr/bin/env bash
# Which residual converges from scratch, and how deep: plain post-norm, the alpha warm-up of several lengths, ReZero, depth-scaled initialisation, and alpha with it; by depth, learning
# rate and seed, on real text, as one page.
#   jobs/compare_alpha.sh --corpus FOLDER --vocab vocab.txt [--depths "6 12 24 48"] [--rates "0.5e-3 2e-3"] [--seeds "1 2 3"] [--warmups "100 400"] [--updates 400]
#                         [--residuals "plain alpha rezero depth depth_alpha"] [--hidden 128] [--sequences 32] [--length 64] [--ranks 1] [--threads 0] [--device auto]
#                         [--set key.path=value ...] [--output runs/compare_alpha]
# Each arm is a run of `roformer pretrain` in a folder of its own, so the same command continues where it was interrupted. The learning rate rises over a tenth of the updates and
# falls to zero at their end, the same for every arm. The page is made anew from what is stored by
#   postprocess/compare_alpha.py OUTPUT
# LAUNCH="srun --mpi=pmix -n" starts the ranks by other means than mpirun, ROFORMER names another program.
set -euo pipefail
[[ ${1:-} != --help && ${1:-} != -h ]] || { sed -n '2,/^set /{/^#/s/^# \?//p}' "${BASH_SOURCE[0]}"; exit 0; }
exec /usr/bin/python3 "$(dirname "${BASH_SOURCE[0]}")/compare_alpha.py" "$@"

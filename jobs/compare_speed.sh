#!/usr/bin/env bash
# Speed of training, family beside family, and RoFormerV2 with one thing of the others at a time: the article's table beside ours, as one page.
#   jobs/compare_speed.sh [--sizes "base"] [--lengths "128 512"] [--families "roberta roformer_v2"] [--switches base:128|none] [--tokens 1024]
#                         [--rounds 7] [--steps 3] [--ranks 1] [--threads 0] [--device auto] [--output runs/compare_speed] [--no-page]
# Every arm is measured once a round, there and back, so that a machine that changes favours none. --tokens: of an update, so a length of 128 has four times
# the sequences of 512. The same command continues where it was interrupted; --rounds 9 adds two rounds to 7. The page is made anew from what is stored by
#   postprocess/compare_speed.py OUTPUT/bench.h5 [bench.h5 of other machines]
# --no-page: where Python has no matplotlib.
# LAUNCH="srun --mpi=pmix -n" starts the ranks by other means than mpirun, ROFORMER names another program.
set -euo pipefail
[[ ${1:-} != --help && ${1:-} != -h ]] || { sed -n '2,/^set /{/^#/s/^# \?//p}' "${BASH_SOURCE[0]}"; exit 0; }
exec /usr/bin/python3 "$(dirname "${BASH_SOURCE[0]}")/compare_speed.py" "$@"

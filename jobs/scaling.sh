#!/usr/bin/env bash
# Strong and weak scaling of an update over ranks x tensor split x batch, in rounds, as one page.
#   jobs/scaling.sh [--ranks "1 2 4"] [--tensor "1 2"] [--batch "8 16"] [--per-rank "4"] [--rounds 3] [--threads 1] [--model FILE]
#                   [--length 128] [--steps 5] [--output runs/scaling] [--set key.path=value ...]
# --batch: sequences of an update whatever the ranks (strong scaling); --per-rank: sequences for each rank (weak scaling); "none": not
# that one; --set goes to bench. Where OUTPUT/bench.h5 has a row of a measurement it is not made again: the same command continues,
# --rounds 5 adds two rounds.
# LAUNCH="srun --mpi=pmix -n" starts the ranks by other means than mpirun (jobs/scaling.slurm does), ROFORMER names another program.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cores=${CORES:-$(nproc)}
threads=1 rounds=3 steps=5 length=128 model=inputs/model/small.json output=runs/scaling
ranks="" tensor="" batch="" per_rank="4"
sets=()
read -ra roformer <<<"${ROFORMER:-build/cpu-release/roformer}"
launch=${LAUNCH:-mpirun -n}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=${OMPI_MCA_hwloc_base_binding_policy:-none}

refuse() { echo "scaling: $*" >&2; exit 2; }
while (($#)); do
  case $1 in
    --help | -h) sed -n '2,/^set /{/^#/s/^# \?//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    --ranks | --tensor | --batch | --per-rank | --rounds | --threads | --model | --length | --steps | --output | --set)
      (($# > 1)) || refuse "$1 needs a value" ;;
    *) refuse "unknown option $1 (--help lists them)" ;;
  esac
  case $1 in
    --set) sets+=(--set "$2") ;;
    *) name=${1#--}; printf -v "${name//-/_}" %s "$2" ;;
  esac
  shift 2
done

[[ $batch != none ]] || batch=" "
[[ $per_rank != none ]] || per_rank=""
for list in ranks tensor batch per_rank rounds threads length steps; do
  for word in ${!list}; do [[ $word =~ ^[1-9][0-9]*$ ]] || refuse "--${list//_/-}: expected whole numbers above 0, found \"$word\""; done
done
for one in rounds threads length steps; do [[ ${!one} =~ ^[0-9]+$ ]] || refuse "--$one: expected one whole number above 0, found \"${!one}\""; done
# One rank, doubled until all cores work, and all cores; two ranks in any case.
if [[ -z $ranks ]]; then
  most=$((cores / threads > 2 ? cores / threads : 2))
  for ((r = 1; r < most; r *= 2)); do ranks+="$r "; done
  ranks+=$most
fi
largest=$(printf '%s\n' $ranks | sort -n | tail -n 1)
[[ -n $tensor ]] || tensor="1 2"
[[ -n $batch ]] || batch=$((4 * largest > 8 ? 4 * largest : 8))
command -v "${roformer[0]}" >/dev/null || refuse "${roformer[0]} is not there; build it (README.md) or set ROFORMER"
[[ -f $model ]] || refuse "--model: $model is not there"
/usr/bin/python3 -c 'import h5py, matplotlib' 2>/dev/null || refuse "/usr/bin/python3 lacks h5py or matplotlib (env/debian.sh installs them)"
mkdir -p "$output" 2>/dev/null || refuse "--output: cannot make the folder $output"
file=$output/bench.h5

# Every measurement once: "ranks tensor sequences". Tensor ranks divide the ranks, and each data rank needs a sequence.
points=()
for r in $ranks; do
  for t in $tensor; do
    ((r % t == 0)) || continue
    sequences=$batch
    for each in $per_rank; do sequences+=" $((each * r))"; done
    for s in $(printf '%s\n' $sequences | sort -nu); do ((s < r / t)) || points+=("$r $t $s"); done
  done
done
((${#points[@]})) || refuse "nothing to measure: no number of --tensor divides one of --ranks"

label() {  # of a point: what its row is known by
  local r t s
  read -r r t s <<<"$1"
  echo "scaling: $model, $r ranks, tensor $t, $s x $length, $threads threads, $steps steps${sets[*]:+, ${sets[*]}}"
}
minutes() { printf '%02d:%02d' $(($1 / 60)) $(($1 % 60)); }

there=""
[[ ! -e $file ]] || there=$(/usr/bin/python3 postprocess/scaling.py "$file" --labels) || exit 2
left=()
for ((round = 1; round <= rounds; ++round)); do
  order=("${points[@]}")
  # There and back, so that a machine that becomes slower or faster favours none.
  ((round % 2)) || for ((i = 0; i < ${#points[@]}; ++i)); do order[i]=${points[-1 - i]}; done
  for point in "${order[@]}"; do
    (($(grep -cxF -- "$(label "$point")" <<<"$there" || true) >= round)) || left+=("$round $point")
  done
done
total=$((rounds * ${#points[@]}))
echo "scaling: ranks $ranks; tensor $tensor; sequences $batch, a rank ${per_rank:-none}; $rounds rounds into $file:" \
  "$total measurements, $((total - ${#left[@]})) of them there"

trap 'echo; echo "scaling: interrupted; the same command continues"; exit 130' INT TERM
begin=$SECONDS made=0 impossible=""
for one in "${left[@]}"; do
  read -r round r t s <<<"$one"
  what="round $round: $r ranks, tensor $t, $s x $length"
  if [[ $impossible == *"<$r $t $s>"* ]]; then made=$((made + 1)); continue; fi
  code=0
  $launch "$r" "${roformer[@]}" bench --set "model=$model" "${sets[@]}" --set "parallel.tensor=$t" --set "parallel.threads=$threads" --set "batch.sequences=$s" \
    --set "batch.max_length=$length" --set "steps=$steps" --set "label=$(label "$r $t $s")" --set "output=$file" >"$output/last.log" 2>&1 </dev/null || code=$?
  cat "$output/last.log" >>"$output/bench.log"
  made=$((made + 1))
  if ((code == 2)); then  # no such measurement: five heads over two ranks, say
    impossible+="<$r $t $s>"
    echo "left out: $what: $(grep -m 1 '^error: ' "$output/last.log" || tail -n 1 "$output/last.log")"
    continue
  elif ((code)); then
    cat "$output/last.log" >&2
    echo "scaling: $what: exit code $code; the same command continues" >&2
    exit 1
  fi
  found=$(sed -nE 's/^update ([0-9.]+ s).*/\1/p; s/^([0-9]+ tokens\/s).*/\1/p' "$output/last.log" | paste -sd, | sed 's/,/, /')
  echo "$made/${#left[@]}  $what: $found  ETA $(minutes $(((SECONDS - begin) * (${#left[@]} - made) / made)))"
done
rm -f "$output/last.log"
[[ -e $file ]] || refuse "nothing could be measured"
/usr/bin/python3 postprocess/scaling.py "$file" -o "$output/scaling.html"

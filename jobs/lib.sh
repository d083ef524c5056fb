# What the batch scripts of this folder share. Each sources it in the project's folder and calls train, build_corpus or prepare_site.
#
# A site adapts them without editing by jobs/site.sh (or the file that ROFORMER_SITE names), a piece of bash that is sourced first: module
# loads, and any of these variables, which may as well come from the environment (sbatch passes it on):
#   ROFORMER       the program, with what goes before it: "apptainer exec --nv roformer.sif roformer" (default: a build of this folder)
#   LAUNCH         what starts the ranks (srun --mpi=pmix); "mpirun" where srun and the MPI library do not know each other
#   MAX_FRUITLESS  after so many starts in a row that left no new checkpoint the job gives up (3)
set -euo pipefail

note() { printf 'job %s, %(%F %T)T: %s\n' "${SLURM_JOB_ID:-without Slurm}" -1 "$*"; }
refuse() { echo "error: jobs: $*" >&2; exit 2; }

# Sources the site's file; sets program, launch and threads.
prepare_site() {
  local site=${ROFORMER_SITE:-jobs/site.sh}
  if [[ -f $site ]]; then
    set +eu  # the functions of environment modules fail under these
    # shellcheck disable=SC1090
    source "$site"
    set -eu
  elif [[ -n ${ROFORMER_SITE:-} ]]; then
    refuse "ROFORMER_SITE: $site is not there"
  fi
  local build=build/cpu-release
  [[ -z ${SLURM_JOB_GPUS:-}${SLURM_GPUS_ON_NODE:-}${CUDA_VISIBLE_DEVICES:-} || ! -x build/gpu-release/roformer ]] || build=build/gpu-release
  read -ra program <<<"${ROFORMER:-$build/roformer}"
  command -v "${program[0]}" >/dev/null || refuse "${program[0]} is not there; build it (README.md), or set ROFORMER"
  command -v python3 >/dev/null || refuse "python3 is not there; load a module in jobs/site.sh (env/clusters.md)"
  threads=${SLURM_CPUS_PER_TASK:-1}
  export OMP_NUM_THREADS=$threads
  read -ra launch <<<"${LAUNCH:-srun --mpi=pmix}"
  case ${launch[0]##*/} in
    srun)
      export SRUN_CPUS_PER_TASK=$threads     # srun does not take it over from sbatch since Slurm 22.05
      launch+=(--kill-on-bad-exit=1) ;;      # else a step that lost a rank waits for ever
    mpirun | mpiexec)  # a rank has threads: bound to one core they would share it
      export OMPI_MCA_hwloc_base_binding_policy=${OMPI_MCA_hwloc_base_binding_policy:-none}
      export PRTE_MCA_hwloc_default_binding_policy=${PRTE_MCA_hwloc_default_binding_policy:-none} ;;
  esac
}

# The input file: the script's first argument, or the default. Sets input and arguments.
take_input() {  # DEFAULT ARGUMENT...
  input=$1; shift
  if (($#)) && [[ $1 != --* ]]; then input=$1; shift; fi
  [[ -f $input ]] || refuse "the input $input is not there (paths are relative to $PWD)"
  arguments=("$@")
}

# Runs a command line and waits for its end, whatever signals arrive: a signal to this shell is passed on as SIGUSR1, which srun and mpirun
# hand to every rank, and noted in `told`. Sets code.
told="" child=""
hear() {
  local before=$told
  heard=1 told=$1  # first of all: another signal may come while this one is told
  [[ -n $before ]] || note "told to stop by SIG$1"
  [[ -z $child ]] || kill -USR1 "$child" 2>/dev/null || true
}
trap 'hear USR1' USR1
trap 'hear TERM' TERM
run_and_wait() {
  local now
  code=0 heard=0
  "$@" &
  child=$!
  [[ -z $told ]] || kill -USR1 "$child" 2>/dev/null || true  # it came before there was a child
  while :; do
    heard=0 now=0
    wait "$child" || now=$?
    ((now == 127)) || code=$now  # 127: a signal fell between the child's end and here
    ((heard)) || break
  done
  child=""
}

# Which durable results there are, as one word: published checkpoints and finished fine-tunings under the output folder.
progress() {
  { find "$output" -type d -name 'step-*.partial' -prune -o \( -type d -name 'step-*' -prune -o -name metrics.json \) -print 2>/dev/null || true; } |
    LC_ALL=C sort | cksum | tr ' ' '-'
}

give_up() {
  rm -f "$memory"
  note "$1 starts in a row left no new checkpoint in $output: not queued again. See what its log says, then submit again"
  exit 1
}

# Counts starts of this job without progress, also those that Slurm made by itself. Sets fruitless and at_start.
count_starts() {
  local job count before
  memory=$output/requeue.txt fruitless=0 at_start=$(progress)
  if [[ ${SLURM_RESTART_COUNT:-0} != 0 && -f $memory ]] && read -r job count before <"$memory" && [[ $job == "$SLURM_JOB_ID" && $before == "$at_start" ]]; then
    fruitless=$((count + 1))
  fi
  ((fruitless < limit)) || give_up "$fruitless"
  mkdir -p "$output" 2>/dev/null || refuse "cannot make the output folder $output"
  echo "$SLURM_JOB_ID $fruitless $at_start" >"$memory" || refuse "cannot write in the output folder $output"
}

# "RUNNING None": state and reason as Slurm has them now.
job_state() { scontrol show job -o "$SLURM_JOB_ID" 2>/dev/null | sed -nE 's/.* JobState=([A-Z_]+) Reason=([A-Za-z_]*).*/\1 \2/p' || true; }

# Puts the job in the queue again, unless it got nowhere or Slurm is ending it by itself: then it was cancelled and stays so, or was requeued.
requeue() {
  [[ $(progress) != "$at_start" ]] || ((fruitless + 1 < limit)) || give_up $((fruitless + 1))
  case $(job_state) in
    "" | RUNNING* | *TimeLimit) ;;
    *) note "ended by Slurm (cancelled, or queued again by it); the same sbatch continues"
       exit "$code" ;;
  esac
  if ! scontrol requeue "$SLURM_JOB_ID"; then
    note "it cannot be queued again (submitted with --no-requeue?); the same sbatch continues"
    exit "$code"
  fi
  note "queued again"
  exit 0
}

# A training command over all ranks of the allocation: from the newest checkpoint to the end of its steps, or into the queue again.
train() {  # COMMAND DEFAULT_INPUT ARGUMENT...
  local name=$1 code; shift
  [[ -n ${SLURM_JOB_ID:-} ]] || refuse "not in an allocation; submit it with sbatch"
  prepare_site
  take_input "$@"
  limit=${MAX_FRUITLESS:-3}
  [[ $limit =~ ^[1-9][0-9]*$ ]] || refuse "MAX_FRUITLESS: expected a whole number above 0, found \"$limit\""
  output=$(python3 jobs/read_input.py output "$input" "${arguments[@]}") || exit 2
  [[ -n $output ]] || refuse "$input names no output folder (--set output=FOLDER)"
  local restarts=${SLURM_RESTART_COUNT:-0} kept=() word
  count_starts
  for word in "${arguments[@]}"; do
    # To begin anew is meant once, not at every start.
    [[ $word == --restart && $restarts != 0 ]] || kept+=("$word")
  done
  note "start $((restarts + 1)): $name $input into $output, ${SLURM_NTASKS:-?} ranks of $threads threads on ${SLURM_JOB_NODELIST:-?}"
  [[ -z $told ]] || { code=75; requeue; }
  run_and_wait "${launch[@]}" "${program[@]}" "$name" "$input" --set "parallel.threads=$threads" "${kept[@]}"
  if ((code == 0)); then
    rm -f "$memory"
    note "done"
  elif ((code == 75)); then
    note "stopped after a durable checkpoint"
    requeue
  elif ((code > 128)); then  # a rank or its node died: nothing was said, so it may be worth another try
    note "ended by signal $((code - 128))"
    requeue
  else
    note "failed with exit code $code: see above, and jobs/README.md"
  fi
  exit "$code"
}

# One corpus; as an array job its files are dealt to the tasks, and task 7 of it writes OUTPUT-7.
build_corpus() {  # DEFAULT_INPUT ARGUMENT...
  local code part=()
  [[ -n ${SLURM_JOB_ID:-} ]] || refuse "not in an allocation; submit it with sbatch"
  prepare_site
  take_input "$@"
  output=$(python3 jobs/read_input.py output "$input" "${arguments[@]}") || exit 2
  if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
    local text
    text=$(python3 jobs/read_input.py text "$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))" "$SLURM_ARRAY_TASK_COUNT" "$input" "${arguments[@]}") || exit 2
    output=$output-$SLURM_ARRAY_TASK_ID
    if [[ $text == "[]" ]]; then
      note "more array tasks than text files: nothing for $output"
      exit 0
    fi
    part=(--set "text=$text" --set "output=$output")
  fi
  note "build-corpus $input into $output, ${SLURM_NTASKS:-?} ranks"
  run_and_wait "${launch[@]}" "${program[@]}" build-corpus "$input" "${arguments[@]}" "${part[@]}"
  ((code == 0)) || note "failed with exit code $code; finished parts are used again by the same sbatch"
  exit "$code"
}

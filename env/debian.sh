#!/usr/bin/env bash
# Installs what roformer needs on Debian 12, only what is missing, and says what. Safe to run again.
# As an ordinary user it succeeds when nothing is missing and otherwise prints the one command to run.
#   env/debian.sh [--tests]     also what tests alone use (Slurm: 13 MB, seconds); an ordinary user does without it
set -euo pipefail

packages=(
  cmake ninja-build g++ pkg-config ccache
  libopenmpi-dev openmpi-bin libhdf5-openmpi-dev hdf5-tools
  libboost-program-options1.81-dev libboost-json1.81-dev libboost-iostreams1.81-dev libboost-test1.81-dev
  libboost-context1.81-dev
  libdnnl-dev ocl-icd-opencl-dev libicu-dev libxxhash-dev
  python3 python3-jieba python3-h5py python3-matplotlib python3-numpy xz-utils zstd patchelf
)

# A Slurm for tests/system/slurm, which only root can start.
if [[ ${1:-} == --tests ]]; then
  if ((EUID == 0)); then packages+=(slurm-wlm munge); fi
elif (($#)); then
  echo "env/debian.sh: unknown option $1 (known: --tests)" >&2
  exit 2
fi

if ! command -v dpkg-query >/dev/null; then
  echo "env/debian.sh: this is not a Debian system; install by its own means: ${packages[*]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  [[ $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) == "install ok installed" ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  echo "env/debian.sh: everything is installed"
  exit 0
fi
echo "env/debian.sh: missing: ${missing[*]}"

if ((EUID != 0)); then
  echo "env/debian.sh: no permission to install; run once as root:" >&2
  echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
if ! apt-get update -qq; then
  echo "env/debian.sh: the package lists could not be fetched (no network?)" >&2
  exit 1
fi
if ! apt-get install -y -qq --no-install-recommends "${missing[@]}"; then
  echo "env/debian.sh: installation failed; Boost 1.74's -dev packages exclude those of 1.81: remove libboost-dev if apt names it" >&2
  exit 1
fi
echo "env/debian.sh: installed"

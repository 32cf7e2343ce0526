#!/usr/bin/env bash
# Runs the tests, after installing what is missing; in two processes where the machine has two cores.
# Arguments go to pytest; --full adds the tests that take long.
#
#   tools/run_tests.sh
#   tools/run_tests.sh --full
#   tools/run_tests.sh tests/test_tools -k resume
#   tools/run_tests.sh -n 0 --pdb                  # one process
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/install.sh"
case ${1:-} in -h|--help) print_help "$0"; exit ;; esac
selection=(-m 'not full')
arguments=()
for argument in "$@"; do
  if [ "$argument" = --full ]; then selection=(); else arguments+=("$argument"); fi
done
use_environment
cd "$root"
workers=()
if [ "$(env -u OMP_NUM_THREADS nproc)" -ge 2 ] && "$python" -c 'import xdist' 2>/dev/null; then
  # A file stays in one process, since many of them prepare data or a model once for all of their tests.
  workers=(-n 2 --dist loadfile)
  export OMP_NUM_THREADS=1
fi
exec "$python" -m pytest "${workers[@]}" "${selection[@]}" "${arguments[@]}"

#!/usr/bin/env bash
# Runs the tests, after installing what is missing. Arguments go to pytest; --full adds the tests that take long.
#
#   tools/run_tests.sh
#   tools/run_tests.sh --full
#   tools/run_tests.sh tests/test_tools -k resume
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/install.sh"
selection=(-m 'not full')
arguments=()
for argument in "$@"; do
  if [ "$argument" = --full ]; then selection=(); else arguments+=("$argument"); fi
done
use_environment
cd "$root"
exec "$python" -m pytest "${selection[@]}" "${arguments[@]}"

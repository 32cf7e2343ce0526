#!/usr/bin/env bash
# Runs a stage of the proof (docs/proof.md): tools/run_proof.py in the project's environment.
#
#   tools/run_proof.sh arms --jobs 12 --until 540
#
# `python tools/run_proof.py --help` names the stages and options.
#
# Runs in the active environment, else in .venv (tools/install.sh makes it), else with the plain python3.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.bash"
case ${1:-} in -h|--help) print_help "$0"; exit ;; esac

choose_python
exec "$python" "$root/tools/run_proof.py" "$@"

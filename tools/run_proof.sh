#!/usr/bin/env bash
# Runs a stage of the proof (docs/proof.md): tools/run_proof.py in the project's environment.
#
#   tools/run_proof.sh arms --jobs 12 --until 540
#
# `python tools/run_proof.py --help` names the stages and options.
#
# Runs in the active environment, else in .venv (tools/install.sh makes it), else with the plain python3.
set -euo pipefail

case ${1:-} in -h|--help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit ;; esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
  python=python
elif [ -x "$root/.venv/bin/python" ]; then
  python=$root/.venv/bin/python
else
  python=python3
fi
exec "$python" "$root/tools/run_proof.py" "$@"

#!/usr/bin/env bash
# From a fresh clone to a trained model: installs what is missing and trains the tiny configuration on the CPU.
#
#   tools/quickstart.sh
#   tools/quickstart.sh --cfg-options train_cfg.max_steps=20      # further arguments go to tools/train.py
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/install.sh"
case ${1:-} in -h|--help) print_help "$0"; exit ;; esac
use_environment
exec "$python" "$root/tools/train.py" "$root/configs/adapt_tiny.py" --work-dir "$root/work_dirs/adapt_tiny" "$@"

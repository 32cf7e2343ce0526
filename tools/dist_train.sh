#!/usr/bin/env bash
# Trains in several processes, one per GPU, and returns a status that tells whether it worked.
#
#   tools/dist_train.sh configs/dual_loop_4b.py 8 --deepspeed zero2
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 MASTER_PORT=29500 tools/dist_train.sh configs/dual_loop_4b.py 8
#
# Runs in the active environment, else in .venv (tools/install.sh makes it), else with the plain python3.
# Further arguments go to tools/train.py. Without NNODES the processes find each other on a free port of this machine.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.bash"
case ${1:-} in -h|--help) print_help "$0"; exit ;; esac

if [ $# -lt 2 ]; then
  echo "usage: $(basename "$0") CONFIG GPUS [ARGUMENTS OF tools/train.py]" >&2
  exit 2
fi
config=$1 gpus=$2
shift 2
choose_python
rendezvous=(--standalone)
if [ "${NNODES:-1}" -gt 1 ]; then
  rendezvous=(--nnodes "$NNODES" --node_rank "${NODE_RANK:?set NODE_RANK, from 0}"
    --master_addr "${MASTER_ADDR:?set MASTER_ADDR to the host of node 0}" --master_port "${MASTER_PORT:-29500}")
fi
exec "$python" "$root/tools/launch.py" "${rendezvous[@]}" --nproc_per_node "$gpus" \
  "$root/tools/train.py" "$config" --launcher pytorch "$@"

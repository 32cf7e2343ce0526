#!/usr/bin/env bash
# Evaluates a model in one process per GPU; any number of processes gives the same numbers.
#
#   tools/dist_eval.sh refcoco                                        # assets/tiny on the demo data
#   tools/dist_eval.sh refcoco+ FOLDER 8 --split testA
#   tools/dist_eval.sh refcocog CONFIG CHECKPOINT 8 --ema --split test
#
# The first argument is refcoco, refcoco+, refcocog (referring segmentation), refcocog-caption (region captions) or
# cycle (caption a region, then find it again). Without GPUS all GPUs are used, or one process on a machine without.
# Runs in the active environment, else in .venv (tools/install.sh makes it), else with the plain python3.
# Further arguments: python tools/eval_refcoco.py --help, and eval_captions.py and eval_cycle.py likewise.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.bash"
case ${1:-} in -h|--help) print_help "$0"; exit ;; esac

usage() {
  tasks='{refcoco|refcoco+|refcocog|refcocog-caption|cycle}'
  echo "usage: $(basename "$0") $tasks [MODEL [CHECKPOINT]] [GPUS] [OPTIONS]" >&2
  exit 2
}
case ${1:-} in
  refcoco|refcoco+|refcocog) command=(eval_refcoco.py "$1") ;;
  refcocog-caption) command=(eval_captions.py) ;;
  cycle) command=(eval_cycle.py) ;;
  *) usage ;;
esac
shift
gpus=
while [ $# -gt 0 ] && [[ $1 != -* ]]; do
  if [[ $1 =~ ^[0-9]+$ ]]; then gpus=$1; else command+=("$1"); fi
  shift
done
choose_python
gpus=${gpus:-$("$python" -c 'import torch; print(max(1, torch.cuda.device_count()))')}
[ "$gpus" -ge 1 ] || usage
if [ "$gpus" -eq 1 ]; then
  exec "$python" "$root/tools/${command[0]}" "${command[@]:1}" "$@"
fi
exec "$python" "$root/tools/launch.py" --standalone --nproc_per_node "$gpus" \
  "$root/tools/${command[0]}" "${command[@]:1}" "$@"

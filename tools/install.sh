#!/usr/bin/env bash
# Prepares the Python environment of this checkout and prints what it does; does nothing when that is already done.
#
#   tools/install.sh                       # then: source .venv/bin/activate
#   PYTHON=/path/to/python tools/install.sh
#
# An active virtual environment with exactly the packages of requirements/lock.txt is used as it is. Otherwise .venv is
# made in the checkout (Python 3.11 or 3.12, about 6 GB). Either has the command `dual-loop` afterwards. The other scripts
# source this file and call `use_environment`, which leaves the interpreter in $python and its folder at the front of
# PATH, and adds nothing to an active environment.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.bash"
lock=$root/requirements/lock.txt
venv=$root/.venv
stamp=$venv/dual_loop.stamp

# Prints how the packages beside the interpreter $1 differ from the lock; nothing if they are the same.
differences() {
  "$1" - "$lock" <<'PY'
import sys
from importlib import metadata

def plain(name):
    return name.lower().replace('_', '-').replace('.', '-')

wanted = [line.strip().split('==') for line in open(sys.argv[1]) if not line.startswith('#')]
installed = {plain(distribution.metadata['Name']): distribution.version for distribution in metadata.distributions()}
found = [(name, installed.get(plain(name)), version) for name, version in wanted]
wrong = [f'{name} {has or "missing"} instead of {version}' for name, has, version in found if has != version]
if wrong:
    print('; '.join(wrong[:3]) + (f'; and {len(wrong) - 3} more' if len(wrong) > 3 else ''))
PY
}

# Prints the first Python that can make a virtual environment, or says on stderr what is wrong with each candidate.
find_python() {
  local candidate problem problems=
  for candidate in ${PYTHON:+"$PYTHON"} python3.12 python3.11 python3 python; do
    if ! command -v "$candidate" >/dev/null; then
      problems+="  $candidate: not found"$'\n'
      continue
    fi
    # Asking is the only way to know: a pyenv shim exists on PATH for versions that are not switched on.
    if problem=$("$candidate" -c '
import sys
if not (3, 11) <= sys.version_info[:2] < (3, 13):
    sys.exit("is Python %d.%d" % sys.version_info[:2])
import ensurepip, venv' 2>&1); then
      command -v "$candidate"
      return
    fi
    problems+="  $candidate: $(grep -v '^ *$' <<<"$problem" | head -n 1)"$'\n'
  done
  printf '%s\n%s' 'dual-loop needs Python 3.11 or 3.12 with the venv module; none of these works:' "$problems" >&2
  echo 'Install one (on Debian and Ubuntu: apt install python3.11 python3.11-venv) or set PYTHON=/path/to/python.' >&2
  return 1
}

# The content of the stamp. It covers the folder too, which the scripts in .venv/bin hold.
current_stamp() {
  { cat "$lock" "$root/setup.cfg" "$root/pyproject.toml"; echo "$root"; } | sha256sum | cut -d ' ' -f 1
}

install_venv() {
  if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(current_stamp)" ]; then
    return
  fi
  local base
  base=$(find_python)
  echo "dual-loop: installing requirements/lock.txt into $venv ($("$base" --version)); this takes some minutes"
  "$base" -m venv --clear "$venv"
  "$venv/bin/python" "$root/tools/install_packages.py" "$lock"
  "$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation -e "$root"
  local wrong
  wrong=$(differences "$venv/bin/python")
  if [ -n "$wrong" ]; then
    echo "dual-loop: $venv differs from requirements/lock.txt after installing: $wrong" >&2
    return 1
  fi
  current_stamp >"$stamp"
}

# Sets $python, and PATH and PYTHONPATH for the commands it starts (xtuner, torchrun).
use_environment() {
  python=
  if [ -n "${VIRTUAL_ENV:-}" ] && [ -x "$VIRTUAL_ENV/bin/python" ] && [ "$VIRTUAL_ENV" != "$venv" ]; then
    local wrong
    wrong=$(differences "$VIRTUAL_ENV/bin/python")
    if [ -z "$wrong" ]; then
      echo "dual-loop: using the active environment $VIRTUAL_ENV"
      python=$VIRTUAL_ENV/bin/python
    else
      echo "dual-loop: the active environment $VIRTUAL_ENV does not fit ($wrong); using $venv"
    fi
  fi
  if [ -z "$python" ]; then
    install_venv
    python=$venv/bin/python
  fi
  export PATH="$(dirname "$python"):$PATH"
  export PYTHONPATH="$root/projects${PYTHONPATH:+:$PYTHONPATH}"
}

# Gives an active environment the command `dual-loop` of this checkout, which .venv has from the start.
install_command() {
  local found
  found=$(cd / && env -u PYTHONPATH "$python" -c 'import dual_loop_command; print(dual_loop_command.__file__)' 2>&1 || true)
  if [ "$found" = "$root/projects/dual_loop_command/__init__.py" ] && [ -x "$(dirname "$python")/dual-loop" ]; then
    return
  fi
  echo "dual-loop: adding the command dual-loop to $VIRTUAL_ENV"
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e "$root"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  case ${1:-} in
    '') ;;
    -h|--help) print_help "$0"; exit ;;
    *) echo "install.sh: takes no arguments, got $1; --help says more" >&2; exit 2 ;;
  esac
  use_environment
  if [ "$python" != "$venv/bin/python" ]; then
    install_command
  fi
  echo "dual-loop: ready; activate with: source '$(dirname "$python")/activate', then try: dual-loop --help"
fi

# What the shell scripts share: $root of the checkout, `print_help`, and `choose_python` for those that install nothing.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Prints the comment at the head of a script: what `--help` says.
print_help() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$1"
}

# Sets $python: of the active environment, else of .venv, else the plain python3.
choose_python() {
  if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    python=python
  elif [ -x "$root/.venv/bin/python" ]; then
    python=$root/.venv/bin/python
  else
    python=python3
  fi
}

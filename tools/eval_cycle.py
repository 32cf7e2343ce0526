"""Cycle consistency, whether a model finds an object again from its own description: `dual-loop eval cycle`.

    python tools/eval_cycle.py                                      # assets/tiny on the demo data
    python tools/eval_cycle.py FOLDER --config configs/dual_loop_4b.py --source sav
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

from dual_loop_command.evaluate import CYCLE_TASK


def main(argv: list[str] | None = None) -> int:
    """What the command line says; returns the exit status."""
    return CYCLE_TASK.main_of('tools/eval_cycle.py', argv)


if __name__ == '__main__':
    CYCLE_TASK.run_script('tools/eval_cycle.py')

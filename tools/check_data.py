"""Tell whether all data of a config are there and can be used: `dual-loop check`.

    python tools/check_data.py configs/dual_loop_4b.py
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

from dual_loop_command.check import COMMAND


def main(argv: list[str] | None = None) -> int:
    """What the command line says; returns the exit status."""
    return COMMAND.main_of('tools/check_data.py', argv)


if __name__ == '__main__':
    COMMAND.run_script('tools/check_data.py')

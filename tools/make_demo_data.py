"""Write synthetic demo data in all five on-disk formats: `dual-loop demo-data`.

    python tools/make_demo_data.py OUT [--images N] [--seed S]
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

from dual_loop_command.demo_data import COMMAND


def main(argv: list[str] | None = None) -> int:
    """What the command line says; returns the exit status."""
    return COMMAND.main_of('tools/make_demo_data.py', argv)


if __name__ == '__main__':
    COMMAND.run_script('tools/make_demo_data.py')

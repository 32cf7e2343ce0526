"""Train from a config, with an exit status that tells whether it worked: `dual-loop train`.

    python tools/train.py configs/dual_loop_tiny.py --work-dir work_dirs/tiny

Hands over to the train command of XTuner in this process; --help says more.
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

from dual_loop_command.train import COMMAND


def main(argv: list[str] | None = None) -> int:
    """What the command line says; returns the exit status."""
    return COMMAND.main_of('tools/train.py', argv)


if __name__ == '__main__':
    COMMAND.run_script('tools/train.py')

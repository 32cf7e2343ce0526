"""Draw samples as the model sees them: `dual-loop browse`.

    python tools/browse_dataset.py configs/dual_loop_tiny.py
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

from dual_loop_command.browse import COMMAND


def main(argv: list[str] | None = None) -> int:
    """What the command line says; returns the exit status."""
    return COMMAND.main_of('tools/browse_dataset.py', argv)


if __name__ == '__main__':
    COMMAND.run_script('tools/browse_dataset.py')

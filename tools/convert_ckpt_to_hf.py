"""Write a trained checkpoint as a folder that loads without this project: `dual-loop export`.

    python tools/convert_ckpt_to_hf.py CONFIG CHECKPOINT OUT
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

from dual_loop_command.export import COMMAND


def main(argv: list[str] | None = None) -> int:
    """What the command line says; returns the exit status."""
    return COMMAND.main_of('tools/convert_ckpt_to_hf.py', argv)


if __name__ == '__main__':
    COMMAND.run_script('tools/convert_ckpt_to_hf.py')

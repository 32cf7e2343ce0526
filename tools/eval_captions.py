"""Short descriptions of the objects of RefCOCOg, given their masks: `dual-loop eval refcocog-caption`.

    python tools/eval_captions.py                                   # assets/tiny on the demo data
    python tools/eval_captions.py FOLDER --split test
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

from dual_loop_command.evaluate import CAPTIONS_TASK


def main(argv: list[str] | None = None) -> int:
    """What the command line says; returns the exit status."""
    return CAPTIONS_TASK.main_of('tools/eval_captions.py', argv)


if __name__ == '__main__':
    CAPTIONS_TASK.run_script('tools/eval_captions.py')

"""Referring segmentation on RefCOCO, RefCOCO+ or RefCOCOg: `dual-loop eval refcoco`.

    python tools/eval_refcoco.py refcoco                            # assets/tiny on the demo data
    python tools/eval_refcoco.py refcoco+ FOLDER --split testA

tools/dist_eval.sh takes the same arguments and uses all GPUs.
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

from dual_loop_command.evaluate import REFERRING_SCRIPT


def main(argv: list[str] | None = None) -> int:
    """What the command line says; returns the exit status."""
    return REFERRING_SCRIPT.main_of('tools/eval_refcoco.py', argv)


if __name__ == '__main__':
    REFERRING_SCRIPT.run_script('tools/eval_refcoco.py')

"""Show as one table by how much results of evaluations differ from the first: `dual-loop compare`.

    python tools/compare_results.py base.json full.json lora.json --metrics ciou giou --out table.md
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

from dual_loop_command.compare import COMMAND


def main(argv: list[str] | None = None) -> int:
    """What the command line says; returns the exit status."""
    return COMMAND.main_of('tools/compare_results.py', argv)


if __name__ == '__main__':
    COMMAND.run_script('tools/compare_results.py')

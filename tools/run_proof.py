"""Run a stage of the proof: what the loops teach, see docs/proof.md.

    python tools/run_proof.py arms                     # whatever has no result yet, two runs side by side
    python tools/run_proof.py arms --jobs 12 --until 540
    python tools/run_proof.py arms --only supervised both --steps 40   # a reduced set for a CPU
    python tools/run_proof.py figure                   # docs/pictures/proof*.png, from the results

Each run is a process of tools/train.py with a config of configs/proof. When the time is over, runs save their state and
go on with the next call. Results are written to docs/proof/<run>.json; a run that has one is not run again. The exit
status is 0 when all are done, 75 when some are left for another call, 1 when a run failed.
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects'))
    import dual_loop_command.script  # noqa: F401  Ctrl-C while the imports below take their seconds; the environment

import argparse
import json
from dataclasses import replace

from dual_loop.engine import compat
from dual_loop.proof.figure import write_figures
from dual_loop.proof.plan import SPEED_STEPS, arms, stage
from dual_loop.proof.results import FEWEST_STEPS, read_results, seconds_of_arms
from dual_loop.proof.running import Proof, visible_gpus
from dual_loop.proof.tables import table
from dual_loop.stop import run_command
from dual_loop_command.arguments import count
from dual_loop_command.command import Parser

ROOT = Path(__file__).resolve().parents[1]
LEFT = 75  # EX_TEMPFAIL
PICTURES = ROOT / 'docs/pictures'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('stage', choices=('speed', 'recipe', 'arms', 'time', 'main', 'shares', 'figure'))
    parser.add_argument('--jobs', type=count, default=2, help='runs side by side (default: 2), spread over '
                        'the GPUs; in the stage speed one on each')
    parser.add_argument('--until', type=count, default=10**9, metavar='S', help='seconds until runs are suspended')
    parser.add_argument('--only', nargs='+', metavar='ARM', help='of the arms, these')
    parser.add_argument('--steps', type=count, metavar='N', help='of each run, in place of those of the stage')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/proof'), metavar='DIR')
    parser.add_argument('--results', type=Path, default=ROOT / 'docs/proof', metavar='DIR')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    compat.require_xtuner()
    if args.steps and args.steps < FEWEST_STEPS:
        sys.exit(f'run_proof.py: --steps {args.steps} is too short to say how long a step takes: use {FEWEST_STEPS} or '
                 'more')
    if unknown := {*(args.only or ())} - {*arms(ROOT)}:
        sys.exit(f'run_proof.py: no arm {", ".join(sorted(unknown))}: use {", ".join(arms(ROOT))}')
    try:
        if args.stage == 'figure':
            write_figures(read_results(args.results), PICTURES)
            return 0
        runs = stage(args.stage, ROOT, seconds_of_arms(read_results(args.results), SPEED_STEPS))
    except ValueError as error:
        sys.exit(f'run_proof.py: {error}')
    runs = [replace(run, steps=args.steps or run.steps) for run in runs if run.arm in (args.only or (run.arm, ))]
    jobs = max(1, len(visible_gpus())) if args.stage == 'speed' else args.jobs
    proof = Proof(ROOT, args.work_dir.resolve(), args.results.resolve())
    left, failed = proof.go(runs, jobs, args.until)
    print(table(json.loads(proof.result(run).read_text()) for run in runs if proof.result(run).exists()))
    print(f'{len(runs) - left - failed} of {len(runs)} runs are done, {left} left, {failed} failed')
    return 1 if failed else LEFT if left else 0


if __name__ == '__main__':
    run_command(main)

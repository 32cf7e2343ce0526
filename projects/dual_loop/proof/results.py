"""What a run of the proof found, from its log."""

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dual_loop.visualization.run_log import joined, read_starts
from dual_loop.visualization.summary import collect_series

from .plan import Run

#: Figures of held-out scenes: masks of phrases, and descriptions with the way back.
FIGURES = ('held_out/', 'cycle/')
#: Steps that are left out of the seconds of a step: the loaders start and memory is found.
SLOW_STEPS = 20
#: Of a run; configs/_base_/proof.py logs every 20.
FEWEST_STEPS = 40


def read_result(run: Run, work_dir: Path) -> dict[str, Any]:
    """The result of a run that has ended.

    Args:
        run: which one.
        work_dir: of it.

    Returns:
        Its settings, ``seconds`` (median of a step without the first ones), ``before`` and ``after`` (name -> held-out
        figure), ``curves`` (name -> steps and values of everything else that was logged), device and version of torch.

    Raises:
        ValueError: nothing was logged, or the run has no held-out figures of its end.
    """
    series = {name: dict(zip(steps, values))
              for name, (steps, values) in collect_series(joined(read_starts(work_dir))).items()}
    held_out = {name: values for name, values in series.items() if name.startswith(FIGURES)}
    if not held_out or any(run.steps not in values for values in held_out.values()):
        raise ValueError(f'{work_dir} has no held-out figures of step {run.steps}: the run has not come to its end')
    seconds = [value for step, value in series['time'].items() if step > SLOW_STEPS]
    return dict(
        asdict(run), seconds=statistics.median(seconds),
        before={name: values[0] for name, values in held_out.items() if 0 in values},
        after={name: values[run.steps] for name, values in held_out.items()},
        curves={name: dict(steps=list(values), values=[round(value, 6) for value in values.values()])
                for name, values in series.items() if name not in held_out},
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU', torch=torch.__version__)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All results below a folder, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob('*.json'))]


def seconds_of_arms(results: list[dict[str, Any]], steps: int) -> dict[str, float]:
    """Seconds of a step of each arm, from its run of so many steps, which was alone on the machine."""
    return {result['arm']: result['seconds'] for result in results if result['steps'] == steps}

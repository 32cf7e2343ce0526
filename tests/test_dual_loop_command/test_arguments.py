"""What is written in the light package as well is what the code has."""

from dual_loop.checkpoints.trained_model import EXPORTED_DTYPES, EXPORTED_PARTS
from dual_loop.datasets.workers import LOADER_TIMEOUT
from dual_loop.evaluation.command_line import SPLIT_BY
from dual_loop.evaluation.predictor import PROTOCOLS
from dual_loop_command import arguments, evaluate


def test_names_are_those_of_the_code():
    assert set(arguments.DTYPES) == set(EXPORTED_DTYPES) and set(arguments.PARTS) == set(EXPORTED_PARTS)
    assert arguments.LOADER_TIMEOUT == LOADER_TIMEOUT and evaluate.PROTOCOLS == PROTOCOLS
    assert set(evaluate.REFERRING_TASKS) == set(SPLIT_BY)

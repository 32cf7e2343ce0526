"""The tiny model behind the page."""

import pytest

from dual_loop.demo_page.questions import Questions
from dual_loop.demo_page.scenes import draw_examples
from dual_loop.evaluation.photograph import answering_model


@pytest.fixture(scope='session')
def questions() -> Questions:
    return Questions(answering_model(), shapes_only=True)


@pytest.fixture(scope='session')
def posed(questions):
    """Both canvases of each example."""
    return [questions.pose(example) for example in draw_examples()]

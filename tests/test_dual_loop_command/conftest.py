"""A photo of the demo world, and the tiny model, which is loaded once."""

from typing import NamedTuple

import numpy as np
import pytest

from dual_loop.demo.rendering import draw_scene
from dual_loop.demo.wording import refer
from dual_loop.evaluation import photograph
from dual_loop.evaluation.loading import load_model


class Photo(NamedTuple):
    pixels: np.ndarray  # (H, W, 3)
    mask: np.ndarray  # (H, W) bool, of the object
    text: str  # which names it


@pytest.fixture(scope='session')
def photo() -> Photo:
    rng = np.random.default_rng(10)
    scene, image, masks, _ = draw_scene(rng)
    return Photo(image, masks[0], refer(rng, scene, 0, relation_chance=0).text)


@pytest.fixture(scope='session')
def tiny(checkout):
    return load_model(checkout / 'assets/tiny')


@pytest.fixture
def one_tiny(tiny, monkeypatch, tmp_path):
    """The commands run in an empty folder and take the loaded model in place of ``assets/tiny``; others they load."""
    monkeypatch.setattr(photograph, 'load_model', lambda model, **options: tiny if model == photograph.TINY
                        else load_model(model, **options))
    monkeypatch.chdir(tmp_path)
    return tiny

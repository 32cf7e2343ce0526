"""One small demo folder for all tests of the demo data."""

import pytest

from dual_loop.demo import make_demo_data


@pytest.fixture(scope='session')
def demo_root(tmp_path_factory):
    """24 images, so that RefCOCO has every split."""
    return make_demo_data(tmp_path_factory.mktemp('demo') / 'data', images=24, seed=3, workers=1, progress=False)

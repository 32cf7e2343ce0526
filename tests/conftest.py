"""Fixtures that every test may use."""

from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='session')
def checkout() -> Path:
    return CHECKOUT


@pytest.fixture(scope='session')
def shared_dir() -> Path:
    """The folder of reference material beside a developer's checkout; a user's clone has none."""
    folder = CHECKOUT.parent / 'shared'
    if not folder.is_dir():
        pytest.skip('no folder ../shared beside the checkout (reference material that a user clone does not have)')
    return folder


@pytest.fixture(scope='session')
def real_samples(shared_dir: Path) -> Path:
    folder = shared_dir / 'real_samples'
    if not folder.is_dir():
        pytest.skip('no folder ../shared/real_samples')
    return folder

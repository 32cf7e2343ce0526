"""A short run of tests/fuzz/fuzz_data.py; docs/decisions.md has the long one."""

import fuzz_data
import pytest
from kinds import KINDS

from dual_loop.datasets import images


def test_random_damage_is_noticed_or_does_not_matter(tmp_path):
    outcomes = fuzz_data.run(24, seed=25, folder=tmp_path)
    assert not [(outcome.title, outcome.failures) for outcome in outcomes if outcome.failures]
    assert len({outcome.title.split()[1] for outcome in outcomes}) > 5, 'formats'
    assert {outcome.end for outcome in outcomes} == {'equal', 'recorded', 'refused'}


def test_the_script_sees_what_is_not_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(images, '_check_whole', lambda *args, **kwargs: None)
    outcomes = fuzz_data.run(8, seed=0, folder=tmp_path, kinds=['zero_block'], formats=['dam_sav'])
    assert any('another sample than before' in failure for outcome in outcomes for failure in outcome.failures)


@pytest.mark.parametrize('name', KINDS)
def test_every_kind_of_damage_applies_somewhere(tmp_path_factory, clean, name):
    folder = tmp_path_factory.mktemp('round')
    outcome = fuzz_data.one_round(0, 0, clean, {each: {} for each in fuzz_data.FORMATS}, [name],
                                  list(fuzz_data.FORMATS), folder)
    assert name in outcome.title


@pytest.fixture(scope='module')
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp('clean') / 'clean'
    fuzz_data.make_clean(folder)
    return folder

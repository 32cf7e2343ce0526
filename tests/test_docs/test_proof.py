"""The tables of docs/proof.md are those of the results that lie beside it."""

import json

import pytest

from dual_loop.proof.plan import BEST, MAIN_STEPS, arms
from dual_loop.proof.results import read_results
from dual_loop.proof.tables import difference_table, table

#: Of a probe.
SHOWN = ('held_out/ciou_new', 'held_out/ciou_old', 'cycle/accuracy_new_names')


@pytest.mark.parametrize(('page', 'folder'), [('proof.md', 'proof'), ('proof_rounds.md', 'proof/first'),
                                              ('proof_rounds.md', 'proof/third')])
def test_the_table_is_that_of_the_results(checkout, page, folder):
    """All runs on the validation scenes, to the last digit."""
    whole = table(each for each in read_results(checkout / 'docs' / folder) if each['held_out'] == 'val')
    assert whole in (checkout / 'docs' / page).read_text()


def test_the_test_scenes_and_the_paired_differences(checkout):
    """In the differences, ``BEST`` is in the length of equal time, and not in that of equal steps."""
    page = (checkout / 'docs/proof.md').read_text()
    tested = [each for each in read_results(checkout / 'docs/proof') if each['held_out'] == 'test']
    assert table(tested) in page
    in_time = [each for each in tested if (each['arm'], each['steps']) != (BEST, MAIN_STEPS)]
    assert difference_table([each for each in in_time if each['percent'] == '5'], BEST) in page


def test_the_arms_are_described_as_their_configs_do(checkout):
    page = (checkout / 'docs/proof.md').read_text()
    for arm in arms(checkout):
        first, _, _ = (checkout / f'configs/proof/{arm}.py').read_text().removeprefix('"""').partition('"""')
        assert f'| `{arm}` | {first} |' in page


def test_every_result_is_of_an_arm_that_is_there(checkout):
    assert {each['arm'] for each in read_results(checkout / 'docs/proof')} <= {*arms(checkout)}


def test_the_probes_are_those_of_their_files(checkout):
    page = (checkout / 'docs/proof_rounds.md').read_text()
    files = [*(checkout / 'docs/proof/probes').glob('*.json')]
    assert len(files) == 19
    for file in files:
        probe = json.loads(file.read_text())
        after = ' | '.join(f'{probe["after"][name]:.3f}' for name in SHOWN)
        row = f'(`{file.stem}`) | {probe["steps"]} | {after} |'
        assert row in page, file

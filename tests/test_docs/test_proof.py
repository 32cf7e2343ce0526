"""The tables of docs/proof.md are those of the results that lie beside it."""

import json
import statistics

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


def test_the_signal_of_the_gradients_is_that_of_its_files(checkout):
    """Cosine with the step before and length, means of the first and of the last 60 steps over two seeds."""
    page, arms_of = (checkout / 'docs/proof.md').read_text(), {}
    for file in sorted((checkout / 'docs/proof/agreement').glob('*.json')):
        run = json.loads(file.read_text())
        arms_of.setdefault(run['arm'], []).append(run)
    assert {arm: len(runs) for arm, runs in arms_of.items()} == dict.fromkeys(
        ('both', 'detached', 'discrete', 'uncorrupted'), 2)

    def mean(runs: list[dict], figure: str, first: int, last: int) -> float:
        of_seeds = [[value for step, value in zip(run['steps'], run['curves'][figure]) if first <= step <= last]
                    for run in runs]
        return statistics.fmean(map(statistics.fmean, of_seeds))

    for arm, runs in arms_of.items():
        for first, last in (1, 60), (181, 240):
            cells = [f'{round(mean(runs, f"agreement{number}", first, last), 2) + 0.0:.2f} of '
                     f'{mean(runs, f"grad_norm{number}", first, last):.1f}' for number in (1, 2, 3)]
            assert f'| `{arm}` | {first} to {last} | {" | ".join(cells)} |' in page

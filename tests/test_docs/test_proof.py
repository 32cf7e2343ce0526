"""The tables of docs/proof.md are those of the results that lie beside it."""

from dual_loop.proof.plan import arms
from dual_loop.proof.results import read_results
from dual_loop.proof.tables import table


def test_the_table_is_that_of_the_results(checkout):
    """All runs on the validation scenes, to the last digit."""
    whole = table(each for each in read_results(checkout / 'docs/proof') if each['held_out'] == 'val')
    assert whole in (checkout / 'docs/proof.md').read_text()


def test_every_result_is_of_an_arm_that_is_there(checkout):
    assert {each['arm'] for each in read_results(checkout / 'docs/proof')} <= {*arms(checkout)}

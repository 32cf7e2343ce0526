import numpy as np
import pytest
from torch.utils.data import ConcatDataset, Dataset

from dual_loop.datasets import RefCOCODataset, SAVPairDataset
from dual_loop.datasets.mix import source_table


class Source(Dataset):
    def __init__(self, samples, **attributes):
        self.samples = samples
        self.__dict__.update(attributes)

    def __len__(self):
        return self.samples


def cells(table):
    """The table's lines as tuples; the columns are at least two blanks apart."""
    header, *rows = table.splitlines()
    assert ' '.join(header.split()) == 'loop source samples repeats share tokens share of tokens'
    return [tuple(cell.strip() for cell in row.split('  ') if cell) for row in rows]


@pytest.mark.parametrize('kind', [list, np.array])
def test_shares_of_samples_and_of_tokens(kind):
    short = Source(3, source='short', repeats=1.5, modality_length=kind([10, 20, 30]))
    long = Source(1, source='long', repeats=1, modality_length=kind([140]))
    only = Source(2000, source='only', repeats=2, modality_length=kind([7] * 2000))
    # 3 and 1 of 4 samples; 60 and 140 of 200 tokens.
    assert cells(source_table({'loop 1': ConcatDataset([short, long]), 'loop 2': only})) == [
        ('loop 1', 'short', '3', '1.5', '75.0%', '20.0', '30.0%'),
        ('loop 1', 'long', '1', '1', '25.0%', '140.0', '70.0%'),
        ('loop 2', 'only', '2,000', '2', '100.0%', '7.0', '100.0%'),
    ]


def test_nested_concatenations_are_one_loop():
    one, two, three = (Source(n, source=f's{n}', repeats=1, modality_length=[1] * n) for n in (1, 2, 5))
    rows = cells(source_table({'loop 1': ConcatDataset([ConcatDataset([one, two]), three])}))
    assert [row[1:5:3] for row in rows] == [('s1', '12.5%'), ('s2', '25.0%'), ('s5', '62.5%')]


def test_what_a_data_set_does_not_tell_is_a_dash():
    known = Source(1, source='known', repeats=1, modality_length=[50])
    assert cells(source_table({'loop 1': ConcatDataset([Source(3), known])})) == [
        ('loop 1', '-', '3', '-', '75.0%', '-', '-'), ('loop 1', 'known', '1', '1', '25.0%', '50.0', '-')]


def test_a_name_in_brackets_is_no_markup():
    assert ' [b]  ' in source_table({'loop 1': Source(1, source='[b]')})


def test_fractional_repeats_and_an_absent_optional_source(refcoco_root, tmp_path, small):
    sentences = RefCOCODataset(refcoco_root, num_image_tokens=100, repeats=2.5, **small)
    absent = SAVPairDataset(tmp_path / 'nowhere', optional=True, **small)
    samples = round(3 * 2.5)  # of the three sentences, two whole rounds and a rounded half
    tokens = sum(sentences.modality_length) / samples
    assert cells(source_table({'loop 1': ConcatDataset([sentences, absent])})) == [
        ('loop 1', 'refcoco', str(samples), '2.5', '100.0%', f'{tokens:.1f}', '100.0%'),
        ('loop 1', 'sav (left out)', '0', '1', '0.0%', '-', '0.0%')]
    assert cells(source_table({'loop 1': absent})) == [('loop 1', 'sav (left out)', '0', '1', '-', '-', '-')]

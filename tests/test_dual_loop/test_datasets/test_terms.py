from dual_loop.datasets import GroundedDataset, SA1BDataset
from dual_loop.datasets.terms import data_terms


def test_terms_are_found_wherever_a_data_set_is_named():
    class Own(GroundedDataset):
        pass

    train = dict(dataset=dict(type='ConcatDataset', datasets=[dict(type=SA1BDataset), dict(type=Own)]))
    cfg = dict(train_dataloader=train, val_dataloader=dict(dataset=dict(type='dual_loop.datasets.RefCOCODataset')))
    assert list(data_terms(cfg)) == [SA1BDataset.licence, 'Own: terms not stated']
    assert list(data_terms([dict(type='dual_loop.datasets.SA1BDataset')])) == [SA1BDataset.licence], 'a dumped config'
    assert 'synthetic' in next(data_terms(dict(type=SA1BDataset, prepare=dict(type='x'))))

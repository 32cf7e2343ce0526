import json
import os
import socket
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner, ValLoop
from torch.utils.data import Dataset

from dual_loop.datasets import collate_samples
from dual_loop.evaluation import GlobalBatchSampler, MaskScores, ReferringMetric

KINDS = 'attribute', 'relation', 'attribute', None
#: In batches of 3 over two ranks: five batches, the last turn has one to spare; one batch for both.
SAMPLES = 13, 2


def mask(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    canvas = torch.zeros(1, 10, 10, dtype=torch.bool)
    for top, left, bottom, right in boxes:
        canvas[0, top:bottom, left:right] = True
    return canvas


def batch_of(*rows: tuple) -> dict:
    """Rows are (name, kind, mask, and perhaps the sentence)."""
    names, kinds, targets, captions = zip(*(row if len(row) == 4 else (*row, 'the red circle') for row in rows))
    return dict(sources=['refcoco'] * len(rows), sample_ids=list(names), kinds=list(kinds), captions=list(captions),
                masks2=torch.cat(targets))


def test_figures_of_each_kind_from_known_masks():
    evaluator = Evaluator(dict(type=ReferringMetric))
    first = batch_of(('a', 'attribute', mask((0, 2, 2, 6))), ('b', 'relation', mask((0, 0, 1, 8))))
    evaluator.process([mask((0, 0, 2, 4))[0], mask()[0]], first)
    last = batch_of(('c', 'attribute', mask((5, 5, 10, 10))))
    evaluator.process([mask((5, 5, 10, 10))[0]], last)
    evaluator.process([mask()[0]], last)  # the same expression again counts once
    assert evaluator.evaluate(3) == {
        'held_out/giou': (4 / 12 + 0 + 1) / 3, 'held_out/ciou': 29 / 45,
        'held_out/ciou_attribute': 29 / 37, 'held_out/ciou_relation': 0 / 8,
    }


def test_expressions_with_new_names_count_apart_where_there_are_some():
    evaluator = Evaluator(dict(type=ReferringMetric))
    square = mask((0, 0, 2, 2))
    rows = [('a', 'attribute', square, 'the brown circle'), ('b', 'attribute', square, 'circle with stripes'),
            ('c', 'relation', square, 'the ring left of the hourglass'), ('d', 'description', square, 'A red bar.'),
            ('e', None, square, 'a brown bar')]  # of other data, whose words mean what they like
    found = [mask((0, 0, 2, side))[0] for side in (1, 2, 0, 2, 0)]
    evaluator.process(found, batch_of(*rows))
    assert evaluator.evaluate(5) == {
        'held_out/giou': 0.5, 'held_out/ciou': 0.5, 'held_out/ciou_attribute': 6 / 8, 'held_out/ciou_relation': 0,
        'held_out/ciou_description': 1, 'held_out/ciou_new': 6 / 12, 'held_out/ciou_old': 1,
        'held_out/ciou_attribute_new': 0.5, 'held_out/ciou_attribute_old': 1, 'held_out/ciou_relation_new': 0,
        'held_out/ciou_description_new': 1,
    }


# -- any number of ranks ----------------------------------------------------------------------------------------------


class Expressions(Dataset):
    """Samples with random masks; some have no kind."""

    def __init__(self, length: int):
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        generator = torch.Generator().manual_seed(index)
        pixels = torch.randint(256, (3, 16, 16), dtype=torch.uint8, generator=generator)
        masks = torch.rand(16, 16, generator=generator) > 0.5
        return dict(pixel_values=pixels.float(), g_pixel_values=pixels, prompt_masks=masks[:4, :4], masks=masks,
                    caption=f'thing {index}', kind=KINDS[index % 4], describes=False, source='synthetic',
                    sample_id=f'sample{index}', image_key=f'image{index}')


class BatchDependent(BaseModel):
    """Masks that depend on the whole batch, as those of a real model do in the last bits."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, pixel_values, masks2, mode='predict', **_):
        assert mode == 'predict' and not self.training and not torch.is_grad_enabled()
        shown = pixel_values[:, 0] * self.weight
        return list(masks2 ^ (shown > shown.mean() + 20))


def make_runner(folder: Path, samples: int, **options) -> Runner:
    return Runner(
        BatchDependent(), str(folder), log_level='ERROR',
        val_dataloader=dict(
            dataset=Expressions(samples), sampler=dict(type='DefaultSampler', shuffle=False),
            batch_sampler=dict(type=GlobalBatchSampler), batch_size=3, collate_fn=dict(type=collate_samples),
        ),
        val_cfg=dict(type=ValLoop), val_evaluator=dict(type=ReferringMetric), **options,
    )


def evaluate(rank: int, port: int, folder: Path) -> None:
    """What one of two ranks finds in mmengine's own validation, as a file."""
    os.environ['LOCAL_RANK'] = str(rank)
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    distributed = dict(launcher='pytorch', env_cfg=dict(dist_cfg=dict(backend='gloo')), cfg=dict(
        model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None)))
    figures = {samples: make_runner(folder, samples, experiment_name=f'{rank}_{samples}', **distributed).val()
               for samples in SAMPLES}
    (folder / f'{rank}.json').write_text(json.dumps(figures))
    dist.barrier()  # gloo aborts the process whose peer has gone while it still sends
    dist.destroy_process_group()


def by_hand(samples: int) -> dict[str, float]:
    scores = {}
    model = BatchDependent().eval()
    for start in range(0, samples, 3):
        data = collate_samples([Expressions(samples)[index] for index in range(start, min(start + 3, samples))])
        with torch.no_grad():
            predicted = model(**data)
        for row, kind in enumerate(data['kinds']):
            for name in {'', f'_{kind}'} - {'_None'}:
                scores.setdefault(name, MaskScores()).add(predicted[row][None], data['masks2'][row][None])
    return {'held_out/giou': scores[''].giou} | {f'held_out/ciou{name}': score.ciou for name, score in scores.items()}


def test_two_processes_find_exactly_what_one_finds(tmp_path):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    mp.spawn(evaluate, args=(port, tmp_path), nprocs=2)
    ranks = [json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(2)]
    for samples in SAMPLES:
        expected = by_hand(samples)
        assert 0 < expected['held_out/ciou'] < 1
        assert make_runner(tmp_path, samples, experiment_name=f'one_{samples}').val() == expected
        assert [figures[str(samples)] for figures in ranks] == [expected, expected]

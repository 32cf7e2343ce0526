"""Times the evaluation of referring segmentation: sentences a second, and what the time of a batch is spent on."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision.io import write_jpeg

from dual_loop.datasets.images import read_image
from dual_loop.datasets.index import Table
from dual_loop.datasets.shared_memory import check_shared_memory
from dual_loop.datasets.workers import AwaitedLoader
from dual_loop.evaluation.loading import Loaded
from dual_loop.evaluation.predictor import Predictor
from dual_loop.evaluation.referring import ReferringBatches, score_sentences
from llava_sam2.portable import answers
from llava_sam2.portable.network import Sa2VANetwork
from llava_sam2.portable.static_decoding import KeptDecoder, StaticDecoder
from llava_sam2.randomness import generator_for, seed_for

from .phases import Phases
from .roofs import synchronise
from .synthetic import WORDS

#: Of a picture: a size that is usual in COCO, and 3 to 11 sentences, on average as many as in RefCOCO's val.
SIZE, SENTENCES = (480, 640), (3, 12)


class SyntheticSentences:
    """Sentences about JPEGs that are written once, with boxes as objects: what ``ReferringBatches`` asks of a data set.

    Args:
        folder: of the pictures, which exists.
        count: sentences.
    """

    dataset, split = 'synthetic', 'val'

    def __init__(self, folder: Path, count: int):
        self.data_root = folder
        draw, images = np.random.default_rng(seed_for('sentences of a picture')), list[int]()
        while len(images) < count:
            images += [images[-1] + 1 if images else 0] * int(draw.integers(*SENTENCES))
        self.index = Table.of(image=np.array(images[:count]))
        for number in range(images[count - 1] + 1):
            coarse = torch.rand(1, 3, 12, 16, generator=generator_for(0, 'picture', number))
            picture = torch.nn.functional.interpolate(255 * coarse, SIZE, mode='bilinear')[0]
            write_jpeg(picture.byte(), str(self._file(number)), quality=90)

    def _file(self, image: int) -> Path:
        return self.data_root / f'{image}.jpg'

    def path(self, row: int) -> Path:
        return self._file(self.index['image'][row])

    def sample_id(self, row: int) -> str:
        return str(row)

    def read_image(self, row: int) -> torch.Tensor:
        return read_image(self.path(row))

    def read_mask(self, row: int, height: int, width: int) -> np.ndarray:
        mask = np.zeros((height, width), dtype=bool)
        top, left = np.random.default_rng(seed_for('box', row)).integers(0, (height // 2, width // 2))
        mask[top : top + height // 3, left : left + width // 3] = True
        return mask

    def words(self, row: int) -> dict[str, str]:
        draw = np.random.default_rng(seed_for('sentence', row))
        return dict(caption=' '.join(draw.choice(WORDS, int(draw.integers(1, 9)))))


@contextmanager
def answering_at_length(network: Sa2VANetwork, seg_id: int) -> Iterator[None]:
    """Let each token of each answer be ``[SEG]``, inside the block: no answer ends early, and each has a mask, also
    with random weights."""
    own = network.logits

    def logits(hidden_states: torch.Tensor) -> torch.Tensor:
        said = own(hidden_states)
        said[..., seg_id] = said.amax(dim=-1) + 1e3
        return said

    network.logits = logits  # type: ignore[method-assign]
    try:
        yield
    finally:
        del network.logits


def measure_evaluation(loaded: Loaded, folder: Path, batch_size: int, answer_len: int = 12, plain: bool = False,
                       compile: bool = False, warm_up: int = 2, runs: int = 20, num_workers: int = 6
                       ) -> dict[str, Any]:
    """Evaluate synthetic sentences as ``tools/eval_refcoco.py`` does, by the protocol ``generate``.

    Args:
        loaded: the model.
        folder: an empty one, for the pictures.
        batch_size: sentences at a time.
        answer_len: tokens of every answer, read one by one.
        plain: decode plainly.
        compile: of static decoding.
        warm_up: batches that are not counted: compilation, capture and the start of the loader.
        runs: batches that are timed, and as many again by phases.
        num_workers: of the loader; 0 loads in between.

    Returns:
        ``sentences_per_second`` with the waits for the loader, median ``seconds`` of a batch without them, mean
        ``seconds_waited`` for one, mean exclusive seconds by ``phases`` (with a wait for the device at each border, so
        a little more in all), seconds of ``warm_up``, ``pictures`` a batch, and ``peak_gib`` on a GPU.
    """
    device, network = loaded.network.device, loaded.network
    loaded.decoder = None if plain else KeptDecoder(compile, batch_size)
    predictor = loaded.predictor()
    dataset = SyntheticSentences(folder, (warm_up + 2 * runs) * batch_size)
    batches = ReferringBatches(dataset, predictor.prepare, batch_size)
    loader = AwaitedLoader(DataLoader(batches, batch_size=None, num_workers=num_workers, collate_fn=_as_it_is),
                           'the benchmark')
    check_shared_memory([loader])
    phases, seconds, waited, pictures = Phases(device), [], [], []
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    with answering_at_length(network, loaded.vocabulary.seg_id):
        fetched = iter(loader)
        for number in range(len(batches)):
            if number == warm_up + runs:
                phases.take()
            started = time.perf_counter()
            batch = next(fetched)
            arrived = time.perf_counter()
            with phases.watching_calls(_calls(predictor) if number >= warm_up + runs else []), phases('scores'):
                said = predictor.segment(batch.pictures, batch.texts, answer_len - 1)
                score_sentences(batch, said)
            synchronise(device)
            if not all(each.has_seg for of_picture in said for each in of_picture):
                raise RuntimeError('an answer has no [SEG]: what is timed is not the work of an evaluation')
            waited.append(arrived - started)
            seconds.append(time.perf_counter() - arrived)
            pictures.append(len(batch.pictures))
    timed = slice(warm_up, warm_up + runs)
    result = dict(
        sentences_per_second=runs * batch_size / sum(seconds[timed] + waited[timed]),
        seconds=statistics.median(seconds[timed]), seconds_waited=statistics.mean(waited[timed]),
        phases={name: value / runs for name, value in phases.take().items()}, warm_up=sum(seconds[:warm_up]),
        pictures=statistics.mean(pictures[timed]))
    if device.type == 'cuda':
        result['peak_gib'] = torch.cuda.max_memory_allocated() / 2**30
    return result


def _calls(predictor: Predictor) -> list[tuple[Any, str, str]]:
    network = predictor.network
    return [(network, 'encode_vision', 'InternViT'), (network, 'encode_grounding', "SAM 2's encoder"),
            (StaticDecoder, '_read', 'prefill'), (StaticDecoder, 'decode', 'decoding'),
            (answers, 'greedy_decode', 'decoding, prefill included'), (answers, '_seg_embeds', 'pass for [SEG]'),
            (network, 'decode_masks', 'mask decoder'), (predictor, '_masks', 'masks in their size, to the host'),
            (predictor, 'segment', 'texts and rows')]


def describe(report: dict[str, Any]) -> str:
    """The report as a table."""
    ways = [(size, way) for size, of_size in report['batch_sizes'].items() for way in of_size]
    found = [report['batch_sizes'][size][way] for size, way in ways]
    lines = [f'{report["device"]}, {report["dtype"]}, {report["answer_len"]} tokens an answer',
             ' ' * 44 + ''.join(f'{f"{size} {way}":>12}' for size, way in ways)]
    for key, title in (('sentences_per_second', 'sentences a second'), ('seconds', 's a batch, median'),
                       ('seconds_waited', 's waited for the loader, mean'), ('pictures', 'pictures a batch'),
                       ('warm_up', 's to warm up (compile, capture)'), ('peak_gib', 'GiB at most')):
        if key in found[0]:
            lines.append(f'{title:44}' + ''.join(f'{each[key]:12.4g}' for each in found))
    for phase in dict.fromkeys(name for each in found for name in each['phases']):
        lines.append(f'  {phase:42}' + ''.join(f'{each["phases"].get(phase, 0):12.4f}' for each in found))
    return '\n'.join(lines)


def _as_it_is(batch: Any) -> Any:
    return batch

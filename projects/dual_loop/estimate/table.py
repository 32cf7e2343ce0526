"""An estimate as lines to read."""

from collections.abc import Iterable, Iterator

from .batches import caption_len
from .cost import CARDS, Estimate, seconds

_KEPT = dict(
    frozen_weights='frozen weights', trained_weights='trained weights', masters='their fp32 masters',
    optimizer="optimizer's averages", gradients_of_loops='gradients of the loops, for surgery',
    averages='EMA averages', teacher="teacher's working copy of them", workspaces='work space of cuBLAS',
    decoder_copy="decoder's merged copy of the layers", decoder_cache="decoder's cache")


def lines(estimate: Estimate, cards: Iterable[int] = CARDS, tflops: float = 784, share: float = 0.4,
          gigabytes: float = 2966, read_share: float = 0.4, network: float = 329) -> Iterator[str]:
    """Each as soon as it is known: the largest batches take longest."""
    yield from (f'note: {note}' for note in estimate.notes)
    yield 'parameters, millions                    trained    frozen'
    for part, (trained, frozen) in estimate.parameters.items():
        yield f'  {part:36}{trained / 1e6:9.2f} {frozen / 1e6:9.2f}'
    trained, frozen = map(sum, zip(*estimate.parameters.values()))
    yield f'  {"all":36}{trained / 1e6:9.2f} {frozen / 1e6:9.2f}'
    rows = estimate.rows
    memory = estimate.memory(rows)
    sizes = ', '.join(f'{count} rows of {name}' for name, count in rows.items())
    yield f'memory of a GPU, GiB ({sizes}; accumulation {estimate.accumulation})'
    for name, size in memory.kept.items():
        if size:
            yield f'  {_KEPT[name]:36}{size / 2**30:9.3f}'
    moment = memory.fullest
    for kind, size in moment.kinds.items():
        yield f'  {f"{moment.loop}: {kind}":36}{size / 2**30:9.3f}'
    if memory.optimizer > moment.bytes:
        yield f'  {"in their place, when it steps":36}{memory.optimizer / 2**30:9.3f}'
    yield f'  {"peak":36}{memory.peak / 2**30:9.3f}'
    if estimate.model.base.compiled:
        yield '  (measured peaks of compiled layers were 3 to 12 % higher: leave an eighth, docs/performance.md)'
    if flops := estimate.flops():
        first = next(iter(estimate.model.loops.values()))
        taught = caption_len(estimate.model, first) if flops.teacher else 0
        took = seconds(flops, taught, tflops, share, gigabytes, read_share)
        yield (f'arithmetic of a step: {flops.total / 1e12:.4g} TFLOP; {took:.3g} s at {share:.0%} of {tflops:g} '
               f'TFLOP/s and decoding at {read_share:.0%} of {gigabytes:g} GB/s')
    else:
        yield "arithmetic of a step: not counted for loops of one's own"
    if estimate.sharding.gpus > 1:
        sent = estimate.exchanged()
        yield (f'exchange of a step: each rank sends {sent / 1e9:.3g} GB, {sent / network / 1e9:.3g} s at '
               f'{network:g} GB/s')
    yield 'largest batch (rows of each loop in a micro-batch) on a card of'
    for card in cards:
        most = estimate.largest_batch(card * 10**9)
        yield f'  {card:4d} GB: {most if most else "none, not even one row"}'

"""What a run of a config costs: memory of a GPU by part, the largest batch, arithmetic and seconds of a step."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config

from dual_loop.benchmark.flops import COUNTED, StepFlops, step_flops
from dual_loop.engine.compat import DEEPSPEED_DIR
from dual_loop.engine.flat import PARAMETER_GROUPS
from dual_loop.loop_names import loader_key
from dual_loop.models import MaskLoop

from .batches import UNBOUNDED, caption_len, shadow_batch
from .exchange import exchanged_bytes
from .kept import Sharding, decoder_bytes, kept_bytes, optimizer_moment, parameters_by_part, sharding_of
from .shadow import shadow_model
from .step import Moment, ShadowStep

#: Cards by their makers' GB. They have 6 % more than as many billions of bytes, which CUDA's context and what the
#: allocator cannot use take.
CARDS = 24, 40, 80, 141


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU.

    Attributes:
        kept: part -> bytes, between steps.
        moments: of the loops.
        optimizer: bytes beside what is kept when the optimizer steps.
    """

    kept: Mapping[str, int]
    moments: tuple[Moment, ...]
    optimizer: int

    @property
    def fullest(self) -> Moment:
        return max(self.moments, key=lambda moment: moment.bytes)

    @property
    def peak(self) -> int:
        return sum(self.kept.values()) + max(self.fullest.bytes, self.optimizer)


class Estimate:
    """Of one config.

    Args:
        cfg: as read.
        gpus: processes, one on each GPU.
        deepspeed: name or file of DeepSpeed settings, or None.
        pairs: share of loop-1 rows with a second image.

    Raises:
        ValueError: the config trains no loops, nobody knows the DeepSpeed settings, or they are ZeRO-3.
        FileNotFoundError: nothing says how large the model is.
    """

    def __init__(self, cfg: Config, gpus: int = 1, deepspeed: str | None = None, pairs: float = 0.5):
        self.cfg, self.pairs = cfg, pairs
        self.sharding: Sharding = sharding_of(_deepspeed_settings(deepspeed), gpus)
        self.model, self.notes = shadow_model(cfg)
        if self.model.max_caption_len is None:
            self.notes.append(f'no loop bounds captions: they are counted with {UNBOUNDED} tokens')
        self.accumulation = cfg.train_cfg.get('accumulative_counts', 1)
        groups = cfg.train_cfg.get('groups') or PARAMETER_GROUPS
        self.step = ShadowStep(self.model, self.accumulation, pairs, groups)
        self.known: dict[tuple, Memory] = {}

    @cached_property
    def rows(self) -> dict[str, int]:
        """Rows of a micro-batch of each loop, as the config has them, several objects an image not counted."""
        first, *others = self.model.loops
        train = self.cfg.train_cfg
        further = dict(train.get('loop_dataloaders') or {})
        if train.get('loop2_dataloader'):
            further.setdefault('loop2', train.loop2_dataloader)
        if missing := [name for name in others if name not in further]:
            raise ValueError(f'{missing[0]} has no data: set {loader_key(missing[0])}')
        rows = {first: self.cfg.train_dataloader.batch_size} | {name: further[name].batch_size for name in others}
        for name, count in rows.items():
            if type(count) is not int or count < 1:
                raise ValueError(f'batch_size={count!r} of the loader of {name}: a whole number from 1 on is taken')
        return rows

    @cached_property
    def parameters(self) -> dict[str, tuple[int, int]]:
        return parameters_by_part(self.model)

    def memory(self, rows: Mapping[str, int] | int) -> Memory:
        """Of micro-batches of so many rows."""
        rows = dict.fromkeys(self.model.loops, rows) if isinstance(rows, int) else dict(rows)
        key = tuple(rows.items())
        if key not in self.known:
            self.known[key] = self._memory(rows)
        return self.known[key]

    def exchanged(self) -> float:
        """Bytes that a rank sends in a step."""
        count = sum(parameter.numel() for parameter in self.model.trainables().values())
        return exchanged_bytes(count, len(self.step.engine.gradients), self.sharding)

    def _memory(self, rows: Mapping[str, int]) -> Memory:
        hooks = self.cfg.get('custom_hooks') or []
        averages = any('TeacherEMAHook' in str(hook['type']) for hook in hooks)
        kept = kept_bytes(self.model, len(self.step.engine.gradients), self.sharding, averages)
        asking = [loop for loop in self.model.loops.values() if loop.uses_teacher]
        if asking:
            loop = asking[0]
            batch = shadow_batch(self.model, loop, 1, self.pairs)
            prompt = len(self.model.base.text_rows.description(0, batch['prompt_masks'][0], []).input_ids)
            together = rows[loop.name] * (self.accumulation if isinstance(loop, MaskLoop) else 1)
            kept |= decoder_bytes(self.model, together, prompt, caption_len(self.model, loop))
        return Memory(kept, tuple(self.step.moments(rows)), optimizer_moment(self.model, self.sharding))

    def largest_batch(self, capacity: int, most: int = 512) -> int:
        """Most rows of a micro-batch, the same in all loops, whose peak is at most ``capacity`` bytes; 0 if not one."""
        known = {rows[0][1]: memory.peak for rows, memory in self.known.items() if len({n for _, n in rows}) == 1}
        return largest(lambda rows: self.memory(rows).peak, capacity, max(self.rows.values()), most, known)

    def flops(self) -> StepFlops | None:
        """Of a step on one GPU; None where a loop is not counted."""
        loops = self.model.loops
        if any(type(loop) not in COUNTED for loop in loops.values()):
            return None
        rows = {name: count * self.accumulation for name, count in self.rows.items()}
        second = sum(rows[name] * self.pairs for name, loop in loops.items() if isinstance(loop, MaskLoop))
        return step_flops(self.model, rows, caption_len(self.model, next(iter(loops.values()))),
                          sum(rows.values()) + int(second))


def largest(peak: Callable[[int], int], capacity: int, guess: int, most: int,
            known: Mapping[int, int] | None = None) -> int:
    """Most n of 1..``most`` with ``peak(n) <= capacity``, for a peak that never falls; 0 if there is none.

    Looks where a straight line through two known peaks says, so that few are asked for; ``known`` are some of them.
    """
    known = dict(known or {})
    place: int | None = None if known else min(guess, most)
    while True:
        if place is not None:
            known[place] = peak(place)
        low = max((n for n, size in known.items() if size <= capacity and n <= most), default=0)
        high = min((n for n, size in known.items() if size > capacity), default=most + 1)
        if high - low <= 1:
            return low
        ends = sorted(known.items(), key=lambda item: abs(item[1] - capacity))[:2]
        if len(ends) == 2 and ends[0][1] != ends[1][1]:
            (a, at_a), (b, at_b) = ends
            place = int(a + (capacity - at_a) * (b - a) / (at_b - at_a))
        else:
            place = 2 * low if low else high // 2
        place = min(max(place, low), high)
        if place in (low, high):  # known already: look beside it
            place = low + 1 if place == low else high - 1


def seconds(flops: StepFlops, tokens: int, tflops: float, share: float, gigabytes: float, read_share: float) -> float:
    """Of a step: arithmetic at a share of ``tflops``, and decoding, which reads all weights for each token, at a share
    of ``gigabytes`` a second."""
    arithmetic = (flops.total - flops.teacher) / (tflops * 1e12 * share)
    return arithmetic + tokens * flops.decoded_bytes / (gigabytes * 1e9 * read_share)


def _deepspeed_settings(name: str | None) -> dict[str, Any] | None:
    if name is None:
        return None
    file = Path(name) if Path(name).is_file() else DEEPSPEED_DIR / f'{name.removeprefix("deepspeed_")}.json'
    if not file.is_file():
        known = ', '.join(sorted(path.stem for path in DEEPSPEED_DIR.glob('*.json')))
        raise ValueError(f'--deepspeed {name}: there is no such file, and the names are {known}')
    try:
        settings = json.loads(file.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'--deepspeed {name} is no JSON: {error}') from error
    if not isinstance(settings, dict):
        raise ValueError(f'--deepspeed {name} holds no settings of DeepSpeed: give a JSON object')
    if settings.get('bf16', {}).get('enabled') == 'auto':  # a GPU of today can
        settings['bf16']['enabled'] = True
    return settings

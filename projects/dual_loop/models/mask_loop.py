"""Loop 1: mask to caption to mask."""

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from mmengine.registry import MODELS

from llava_sam2.batches import usable_weights
from llava_sam2.model import Images
from llava_sam2.portable.generation import Decoded
from llava_sam2.portable.network import binary_masks
from llava_sam2.portable.sequences import Row, on_device
from llava_sam2.randomness import seed_for
from llava_sam2.text_rows import TextRows

from .bridge import BridgeOutput, CaptionBridge
from .bridge_gradient import check_limits, limited
from .caption_figures import caption_figures
from .caption_reward import CaptionReward, build_listener
from .corruption import corrupt
from .cycle_filter import cycle_ious, filtered
from .distillation import mask_distillation
from .loop import Loop, Passage, check_caption_len, detached
from .losses import positions_loss

if TYPE_CHECKING:
    from .dual_loop_model import DualLoopModel


class Described(NamedTuple):
    """What the passes of a batch start from.

    Attributes:
        images: encoded.
        captions: the teacher's, of the rows without caption.
        seconds: that the teacher took.
        ious: (P,) of the objects that it found again by these captions; None if it was not asked to.
    """

    images: Images
    captions: list[Decoded]
    seconds: float
    ious: torch.Tensor | None = None


@MODELS.register_module()
class MaskLoop(Loop):
    """Find mask 2 in image 2 from a caption of mask 1 in image 1.

    Rows with a human sentence put it straight into the slot. The other rows are described by the teacher, the
    description is corrupted, the student predicts the caption from it, and the bridge makes the prediction the text of
    the slot; the gradient of mask 2 flows back through it.

    Args:
        bridge: ``gumbel`` (a :class:`CaptionBridge` with ``topk`` and ``tau``) lets the mask's gradient reach the
            caption; ``discrete`` is the baseline that segments with the teacher's text; or the settings of a registered
            class that is called as :class:`CaptionBridge` is.
        topk, tau: of the Gumbel bridge.
        max_caption_len: T, tokens of a generated caption and of a caption in the segmentation slot, at most.
        mask_ratio: share of the teacher's tokens that are corrupted before the student reads them.
        answer_weight: weight of the cross-entropy of the answer that holds ``[SEG]``.
        denoise_weight: weight of the cross-entropy of the corrupted positions against the teacher's tokens. Without it
            nothing keeps the captions language (docs/decisions.md, "Denoising keeps captions language").
        slot: whose tokens stand in the segmentation slot: the ``student``'s sampled ones, or the ``teacher``'s, as it
            said them. The gradient of mask 2 goes through the student's mixture either way, and with the teacher's the
            corruption serves the denoising alone. For a bridge of one's own that takes ``given`` tokens.
        bridge_gradient: factor on the gradient that the second pass sends back through the soft caption; 0 detaches it.
        bridge_max_norm: bound on the norm of that gradient, of each row, see :func:`~.bridge_gradient.limited`.
        short_captions: share of the rows, drawn, whose teacher is asked for a short caption, a phrase, and not for a
            description. For a model that can tell the two questions apart, see :class:`~.caption_loop.CaptionLoop`.
        min_cycle_iou: rows whose mask 2 the teacher does not find again by its own description, with at least this
            IoU, have no weight, see :mod:`~.cycle_filter`; 0 asks for nothing.
        distill_weight: weight of the divergence of the student's mask from the teacher's, which reads its own caption
            as it is, or the human sentence: see :func:`~.distillation.mask_distillation`.
        reward_weight: weight of the score-function term of sampled captions, see
            :class:`~.caption_reward.CaptionReward`.
        listener: who is to find the object by a sampled caption: ``frozen``, the weights that the model is built with;
            ``live``, the student's own; or a registered class of teachers with its further arguments.
        first_step: the loop rests until this step, so that the other loops teach the teacher its words first.
        name: of the loop.

    Raises:
        ValueError: an option makes no sense, or captions are to be rewarded that nobody samples.
    """

    name = 'loop1'
    losses: tuple[str, ...] = ('mask', 'dice', 'answer', 'denoise')

    def __init__(
        self,
        bridge: str | dict = 'gumbel',
        topk: int = 512,
        tau: float = 0.7,
        max_caption_len: int = 256,
        mask_ratio: float = 0.25,
        answer_weight: float = 1.0,
        denoise_weight: float = 0.0,
        slot: str = 'student',
        bridge_gradient: float = 1.0,
        bridge_max_norm: float | None = None,
        short_captions: float = 0.0,
        min_cycle_iou: float = 0.0,
        distill_weight: float = 0.0,
        reward_weight: float = 0.0,
        listener: str | dict = 'frozen',
        first_step: int = 0,
        name: str = 'loop1',
    ):
        if isinstance(bridge, str) and bridge not in ('gumbel', 'discrete'):
            raise ValueError(f'bridge={bridge!r} of loop 1 is unknown, use "gumbel", "discrete" or dict(type=..., ...)')
        if min(distill_weight, reward_weight) < 0:
            raise ValueError(f'model.distill_weight={distill_weight} and model.reward_weight={reward_weight} may not '
                             'be negative')
        if reward_weight and (bridge == 'discrete' or slot == 'teacher'):
            why, instead = ("bridge='discrete'", "bridge='gumbel'") if bridge == 'discrete' else \
                ("slot='teacher'", "slot='student'")
            raise ValueError(f'model.reward_weight rewards captions that the student samples, and with model.{why} it '
                             f'samples none: use {instead}, or reward_weight=0')
        self.name = name
        self.bridge = CaptionBridge(topk, tau) if bridge == 'gumbel' else None if bridge == 'discrete' else \
            MODELS.build(bridge)
        if slot not in ('student', 'teacher'):
            raise ValueError(f'model.slot={slot!r} is unknown, use "student" or "teacher"')
        if slot == 'teacher' and self.bridge is not None and 'given' not in inspect.signature(self.bridge).parameters:
            raise ValueError(f"model.slot='teacher' needs a bridge that is called with given=..., as CaptionBridge is; "
                             f'{type(self.bridge).__name__} is not: add the argument, or use slot="student"')
        if not 0 <= short_captions <= 1:
            raise ValueError(f'model.short_captions={short_captions} is a share of the rows, 0..1; 0 asks for '
                             'descriptions alone')
        if not 0 <= min_cycle_iou <= 1:
            raise ValueError(f'model.min_cycle_iou={min_cycle_iou} is an IoU of 0..1; 0 filters nothing')
        check_limits(bridge_gradient, bridge_max_norm)
        self.max_caption_len = check_caption_len(max_caption_len)
        self.mask_ratio = mask_ratio
        self.answer_weight = answer_weight
        self.denoise_weight = denoise_weight
        self.slot = slot
        self.bridge_gradient, self.bridge_max_norm = bridge_gradient, bridge_max_norm
        self.short_captions = short_captions
        self.min_cycle_iou = min_cycle_iou
        self.distill_weight = distill_weight
        self.reward_weight = reward_weight
        self.listener = listener
        self.first_step = first_step
        self.losses += ('distill', ) * (distill_weight > 0) + ('score', ) * (reward_weight > 0)
        self.reward: CaptionReward | None = None

    @property
    def key(self) -> int | str:
        return 1 if self.name == 'loop1' else self.name

    def attach(self, model: 'DualLoopModel') -> None:
        if self.reward_weight:
            self.reward = CaptionReward(build_listener(self.listener, model), self.max_caption_len)

    def prepare(self, model: 'DualLoopModel', batches: Sequence[Mapping[str, Any]], step: int,
                poll: Callable[[], None] | None = None) -> list['Described']:
        """Encode the images and have the teacher describe the rows without caption, those of all batches together: a
        token costs the teacher as much for two batches as for one. What it then finds again, batch by batch."""
        base = model.base
        images = [base.encode(data['pixel_values'], data['g_pixel_values'], data['image2'].tolist())
                  for data in batches]
        pseudo = [[row for row, caption in enumerate(data['captions']) if caption is None] for data in batches]
        before, rows = list(accumulate((len(each.vision) for each in images), initial=0)), model.base.text_rows
        asked = [(start + image1[row], data['prompt_masks'][row], self._asks_short(rows, data, row, step))
                 for start, data, described in zip(before, batches, pseudo)
                 for image1 in [data['image1'].tolist()] for row in described]
        seconds, taught = 0.0, iter(())
        if asked:
            started = time.perf_counter()
            together = Images(torch.cat([each.vision for each in images]), [], [])
            image_of_row, regions, short = map(list, zip(*asked))
            options = dict(short=short) if any(short) else {}  # a teacher of one's own need not know it
            taught = iter(model.teacher.describe(together, image_of_row, regions, self.max_caption_len, poll,
                                                 **options))
            seconds = time.perf_counter() - started
        described = [Described(of_batch, [next(taught) for _ in rows], seconds / len(batches))
                     for of_batch, rows in zip(images, pseudo)]
        if not self.min_cycle_iou:
            return described
        return [each._replace(ious=self._found_again(model, data, rows, each, poll)) if rows else each
                for each, data, rows in zip(described, batches, pseudo)]

    def forward(self, model: 'DualLoopModel', data: Mapping[str, Any], step: int, preview: bool = False,
                poll: Callable[[], None] | None = None, prepared: 'Described | None' = None) -> dict[str, Any]:
        base = model.base
        images, taught, seconds, ious = prepared or self.prepare(model, [data], step, poll)[0]
        captions: list[str | None] = list(data['captions'])
        pseudo = [row for row, caption in enumerate(captions) if caption is None]
        soft: dict[int, torch.Tensor] = {}
        parts: dict[str, torch.Tensor] = {}
        figures: dict[str, Any] = dict(seconds_teacher=seconds)
        weights = usable_weights(data)
        if ious is not None:
            weights, seen = filtered(weights, on_device(pseudo, weights.device), ious, self.min_cycle_iou)
            figures |= seen
        ids = [_without_final_stop(base.vocabulary.pieces, decoded.ids) for decoded in taught]
        clean = list(captions)
        if self.bridge is None or self.distill_weight:  # else nobody reads it as text
            for row, caption in zip(pseudo, ids):
                clean[row] = base.vocabulary.decode(caption)
        if self.distill_weight:  # before the student's passes, since the teacher borrows its modules
            target = model.teacher.segment(self._questions(model, data, clean, step), images, poll)
        if self.bridge is not None:
            parts['denoise'] = weights.new_zeros(())  # what human sentences contribute
        if self.reward is not None:
            parts['score'] = weights.new_zeros(())
        if pseudo:
            figures |= caption_figures(ids, [decoded.ended for decoded in taught])
            if self.bridge is None:
                captions = clean
            else:
                bridged, denoise, seen, read = self._student_captions(model, data, images, pseudo, ids, step)
                own = weights[on_device(pseudo, weights.device)]
                soft = dict(zip(pseudo, limited(bridged.embeds, self.bridge_gradient, self.bridge_max_norm, own)))
                figures |= seen
                parts['denoise'] = own @ denoise
                for row, caption in zip(pseudo, bridged.ids):
                    captions[row] = base.vocabulary.decode(caption).strip()
                if self.reward is not None:
                    score, seen = self.reward(model, data, images, pseudo, bridged, step, poll)
                    parts['score'] = own @ score
                    figures |= seen
        rows = self._questions(model, data, [soft.get(row, caption) for row, caption in enumerate(captions)], step)
        batch, hidden_states = base.read_rows(rows, images)
        logits = base.segment(rows, hidden_states, images)
        keys = base.keys(step, 'points', data['sample_ids'])
        mask, dice = base.mask_losses(logits, data['masks2'], keys)
        parts |= dict(mask=weights @ mask, dice=weights @ dice, answer=weights @ base.token_loss(batch, hidden_states))
        loss = parts['mask'] + parts['dice'] + self.answer_weight * parts['answer']
        if self.denoise_weight and 'denoise' in parts:
            loss = loss + self.denoise_weight * parts['denoise']
        if self.distill_weight:
            divergence = mask_distillation(logits, target, keys, getattr(base.mask_loss, 'points', None))
            parts['distill'] = weights @ divergence
            loss = loss + self.distill_weight * parts['distill']
        if 'score' in parts:
            loss = loss + self.reward_weight * parts['score']
        output = dict(loss=loss) | detached(parts) | figures
        if preview:
            predicted = binary_masks(logits.detach()[:, None], data['masks2'].shape[-2:])[:, 0]
            written = {row: dict(teacher=caption) for row, caption in zip(pseudo, ids)}
            if pseudo and self.bridge is not None:
                for row, corrupted, own in zip(pseudo, read, bridged.ids):
                    written[row] |= dict(corrupted=corrupted, student=own)
            output['preview'] = dict(captions=captions, predicted=predicted.cpu(), written=written)
        return output

    def _questions(self, model: 'DualLoopModel', data: Mapping[str, Any], captions: Sequence[str | torch.Tensor | None],
                   step: int) -> list[Row]:
        """The question for mask 2 of each row by its caption, and the answer."""
        return [model.base.text_rows.segmentation(step, *each, self.max_caption_len)
                for each in zip(data['sample_ids'], data['image2'].tolist(), captions)]

    def _asks_short(self, rows: TextRows, data: Mapping[str, Any], row: int, step: int) -> bool:
        return seed_for(rows.seed, step, 'short caption', data['sample_ids'][row]) < self.short_captions * 2**63

    def _found_again(self, model: 'DualLoopModel', data: Mapping[str, Any], rows: Sequence[int], described: Described,
                     poll: Callable[[], None] | None) -> torch.Tensor:
        """IoU (P,) of the masks that the teacher finds in image 2 by its own captions."""
        captions = [model.base.vocabulary.decode(decoded.ids) for decoded in described.captions]
        image2, masks2 = data['image2'].tolist(), data['masks2']
        return cycle_ious(model.teacher, described.images, [image2[row] for row in rows], captions,
                          masks2[on_device(rows, masks2.device)], poll)

    def _student_captions(
        self, model: 'DualLoopModel', data: Mapping[str, Any], images: Images, pseudo: Sequence[int],
        ids: Sequence[list[int]], step: int,
    ) -> tuple[BridgeOutput, torch.Tensor, dict[str, torch.Tensor], list[list[int]]]:
        """First student pass: read image 1, mask 1 and the corrupted caption, predict the caption, sample it.

        Returns:
            The captions; the denoising loss (P,); figures; the corrupted captions.
        """
        base, vocabulary = model.base, model.base.vocabulary
        samples, image1 = [data['sample_ids'][row] for row in pseudo], data['image1'].tolist()
        corrupted, replaced = corrupt(ids, self.mask_ratio, vocabulary.ordinary_ids,
                                      base.keys(step, 'corruption', samples, 'cpu'))
        rows = [base.text_rows.description(image1[row], data['prompt_masks'][row], caption,
                                           self._asks_short(base.text_rows, data, row, step))
                for row, caption in zip(pseudo, corrupted)]
        batch, hidden_states = base.read_rows(rows, images)
        # Position i of the caption is predicted by the state one before it.
        width = hidden_states.shape[1]
        before = [number * width + len(row.input_ids) - len(caption) - 1 + place
                  for number, (row, caption) in enumerate(zip(rows, ids)) for place in range(len(caption))]
        states = hidden_states.flatten(0, 1)[on_device(before, hidden_states.device)]
        logits = base.logits(states)
        bridged = self.bridge(logits.split([len(caption) for caption in ids]), base.keys(step, 'gumbel', samples),
                              base.network.token_embeddings(), vocabulary,
                              **(dict(given=ids) if self.slot == 'teacher' else {}))
        denoise = positions_loss(logits if self.denoise_weight else logits.detach(), ids, replaced)
        figures = dict(bridge_entropy=bridged.entropy, bridge_agreement=bridged.agreement)
        return bridged, denoise, figures, corrupted

    def passages(self, rows: TextRows, data: Mapping[str, Any], row: int, step: int) -> Iterator[Passage]:
        image1, image2 = int(data['image1'][row]), int(data['image2'][row])
        sample_id, caption = data['sample_ids'][row], data['captions'][row]
        learned = self.answer_weight > 0
        also = []
        if self.distill_weight:
            also.append(f"The mask is also drawn towards the teacher's (weight {self.distill_weight:g}).")
        if self.reward_weight and caption is None:
            also.append(f'A listener is asked the same with the sampled caption as text; what it finds is the '
                        f"caption's reward (weight {self.reward_weight:g}).")
        if caption is not None:
            yield Passage('Human sentence: find mask 2 in image 2',
                          rows.segmentation(step, sample_id, image2, caption, self.max_caption_len), ' '.join(also),
                          learned=learned)
            return
        described = rows.description(image1, data['prompt_masks'][row], [rows.vocabulary.pad_id],
                                     self._asks_short(rows, data, row, step))
        slotted = rows.segmentation(step, sample_id, image2, torch.zeros(1, 1))
        length = len(described.input_ids)
        if self.bridge is None:
            note, writer = 'Written by the teacher during training.', "teacher's caption"
        else:
            note = 'Written by the teacher during training; the student reads it with some tokens replaced'
            note += f' and learns to restore these (weight {self.denoise_weight:g}).' if self.denoise_weight else '.'
            writer = "student's caption, as embeddings"
            if self.slot == 'teacher':
                writer = "teacher's caption, as embeddings that pass the gradient to the student's"
        if self.min_cycle_iou:
            note += f' Counts if the teacher finds mask 2 by it, with an IoU of at least {self.min_cycle_iou:g}.'
        yield Passage('First pass: describe mask 1 in image 1', described, note, range(length - 1, length),
                      f"teacher's caption, at most {self.max_caption_len} tokens")
        yield Passage('Second pass: find mask 2 in image 2', slotted, ' '.join(also),
                      range(slotted.slot, slotted.slot + 1), writer, learned)


def _without_final_stop(pieces: Sequence[bytes], ids: list[int]) -> list[int]:
    """Drop a final '.' that stands as a token of its own, unless it is all there is."""
    return ids[:-1] if len(ids) > 1 and pieces[ids[-1]] == b'.' else ids

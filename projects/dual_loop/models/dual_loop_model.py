"""The two closed loops over one base model."""

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS

from llava_sam2.model import BatchPreprocessor, Images, VideoLLaVASAMModel, usable_weights
from llava_sam2.portable import prompts
from llava_sam2.portable.rows import caption_row, segmentation_row, soft_segmentation_row
from llava_sam2.portable.sequences import Row

from .bridge import CaptionBridge
from .captions import caption_figures
from .corruption import corrupt
from .losses import positions_loss
from .teacher import Teacher

BRIDGES = ('gumbel', 'discrete')


@MODELS.register_module()
class DualLoopModel(BaseModel):
    """Loop 1 (mask to caption to mask) and loop 2 (caption to mask' to caption).

    Args:
        base: config or instance of :class:`VideoLLaVASAMModel`.
        bridge: ``gumbel`` lets the mask's gradient reach the caption; ``discrete`` is the baseline that segments with
            generated text.
        topk, tau: of the Gumbel bridge.
        max_caption_len: T, tokens of a generated caption and of a caption in the segmentation slot, at most.
        mask_ratio: share of the teacher's tokens that are corrupted before the student reads them.
        answer_weight: weight of the cross-entropy of the answer that holds ``[SEG]``, in both loops.
        denoise_weight: weight of the cross-entropy of the corrupted positions against the teacher's tokens. Without it
            nothing keeps the captions language (docs/decisions.md, "Denoising keeps captions language").
        mask_weight: weight of mask' against the data set's own mask in loop 2; the loop is defined without it.
    """

    def __init__(
        self,
        base: dict | VideoLLaVASAMModel,
        bridge: str = 'gumbel',
        topk: int = 512,
        tau: float = 0.7,
        max_caption_len: int = 256,
        mask_ratio: float = 0.25,
        answer_weight: float = 1.0,
        denoise_weight: float = 0.0,
        mask_weight: float = 0.0,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(data_preprocessor=data_preprocessor or dict(type=BatchPreprocessor))
        if bridge not in BRIDGES:
            raise ValueError(f'model.bridge={bridge!r} is unknown, use one of {BRIDGES}')
        self.base = base if isinstance(base, VideoLLaVASAMModel) else MODELS.build(base)
        self.bridge = CaptionBridge(topk, tau) if bridge == 'gumbel' else None
        self.max_caption_len = max_caption_len
        self.mask_ratio = mask_ratio
        self.answer_weight = answer_weight
        self.denoise_weight = denoise_weight
        self.mask_weight = mask_weight
        self.teacher = Teacher(self.base)

    def init_weights(self) -> None:
        """Nothing to do; see :meth:`VideoLLaVASAMModel.init_weights`."""

    def trainables(self) -> dict[str, torch.nn.Parameter]:
        return {f'base.{name}': parameter for name, parameter in self.base.trainables().items()}

    def state_dict(self, *args, prefix: str = '', **kwargs) -> dict[str, torch.Tensor]:
        """Trained tensors only, unless the frozen ones are random and exist nowhere else."""
        state = super().state_dict(*args, prefix=prefix, **kwargs)
        trained = {prefix + name for name in self.trainables()}
        for name in list(state) if not self.base.random_weights else ():
            if name.startswith(prefix) and name not in trained:
                del state[name]
        return state

    def forward(self, data: Mapping | None, data_samples: Mapping | Sequence | None = None, mode: str = 'loss'):
        """One entry for every pass of training and validation.

        Args:
            data: a collated batch, None for ``surrogate``.
            data_samples: for the loops a dict of their further arguments; for ``surrogate`` the combined gradients,
                one per trainable in the order of :meth:`trainables`.
            mode: ``loop1``, ``loop2``, ``loss`` (plain supervised training), ``predict`` (a mask for each row, by the
                student), or ``surrogate`` (a scalar whose gradient is the given one).
        """
        if mode == 'surrogate':
            parameters = self.trainables().values()
            return sum((p * gradient.to(p.dtype)).sum() for p, gradient in zip(parameters, data_samples, strict=True))
        if mode in ('loss', 'predict'):
            return self.base(data, data_samples, mode=mode)
        if mode == 'loop1':
            return self.loop1(data, **data_samples)
        if mode == 'loop2':
            return self.loop2(data, **data_samples)
        raise ValueError(f'unknown mode {mode!r}')

    # -- loop 1: mask to caption to mask --------------------------------------------------------------------------

    def loop1(
        self, data: Mapping, step: int, preview: bool = False, poll: Callable[[], None] | None = None
    ) -> dict:
        """Find mask 2 in image 2 from a caption of mask 1 in image 1.

        Rows with a human sentence put it straight into the slot. The other rows are described by the teacher, the
        description is corrupted, the student predicts the caption from it, and the bridge makes the prediction the
        text of the slot; the gradient of mask 2 flows back through it.

        Args:
            data: a collated batch.
            step: keys the random draws.
            preview: keep what the pictures show.
            poll: called before each token of the teacher; may raise to abandon the step.

        Returns:
            ``loss`` with its graph; its parts and the figures of the log as numbers; ``preview`` with pictures.
        """
        images = self.base.encode(data['pixel_values'], data['g_pixel_values'])
        captions: list[str | None] = list(data['captions'])
        pseudo = [row for row, caption in enumerate(captions) if caption is None]
        soft: dict[int, torch.Tensor] = {}
        parts: dict[str, torch.Tensor] = {}
        figures: dict[str, float] = dict(seconds_teacher=0.0)
        weights = usable_weights(data)
        if self.bridge is not None:
            parts['denoise'] = weights.new_zeros(())  # what human sentences contribute
        if pseudo:
            started = time.perf_counter()
            taught = self.teacher.describe(
                images,
                [int(data['image1'][row]) for row in pseudo],
                [data['prompt_masks'][row] for row in pseudo],
                self.max_caption_len,
                poll,
            )
            figures['seconds_teacher'] = time.perf_counter() - started
            ids = [self._without_final_stop(decoded.ids) for decoded in taught]
            figures |= caption_figures(ids, [decoded.ended for decoded in taught])
            if self.bridge is None:
                for row, caption in zip(pseudo, ids):
                    captions[row] = self.base.vocabulary.decode(caption)
            else:
                embeds, sampled, denoise, bridge_figures = self._student_captions(data, images, pseudo, ids, step)
                soft = dict(zip(pseudo, embeds))
                figures |= bridge_figures
                parts['denoise'] = weights[pseudo] @ denoise
                for row, caption in zip(pseudo, sampled):
                    captions[row] = self.base.vocabulary.decode(caption).strip()
        rows = [self._slot_row(data, step, row, captions[row], soft.get(row)) for row in range(len(captions))]
        batch, hidden_states = self.base.read(rows, images)
        logits = self.base.segment(batch, hidden_states, images)
        points = [self.base.generator(step, 'points', sample_id) for sample_id in data['sample_ids']]
        bce, dice = self.base.mask_losses(logits, data['masks2'], points)
        parts |= dict(
            mask=weights @ bce,
            dice=weights @ dice,
            answer=weights @ self.base.token_loss(batch, hidden_states),
        )
        loss = parts['mask'] + parts['dice'] + self.answer_weight * parts['answer']
        if 'denoise' in parts:
            loss = loss + self.denoise_weight * parts['denoise']
        output = dict(loss=loss) | {name: float(part.detach()) for name, part in parts.items()} | figures
        if preview:
            size = data['masks2'].shape[-2:]
            full = torch.nn.functional.interpolate(logits.detach()[:, None].float(), size=size, mode='bilinear')[:, 0]
            output['preview'] = dict(captions=captions, predicted=(full > 0).cpu())
        return output

    def _student_captions(
        self, data: Mapping, images: Images, pseudo: Sequence[int], ids: Sequence[list[int]], step: int
    ) -> tuple[list[torch.Tensor], list[list[int]], torch.Tensor, dict[str, float]]:
        """First student pass: read image 1, mask 1 and the corrupted caption, predict the caption, sample it.

        Returns:
            Per row the soft caption and its sampled ids; the denoising loss (P,); figures.
        """
        base, vocabulary = self.base, self.base.vocabulary
        rows, replaced = [], []
        for row, caption in zip(pseudo, ids):
            generator = base.generator_cpu(step, 'corruption', data['sample_ids'][row])
            corrupted, positions = corrupt(caption, self.mask_ratio, vocabulary.ordinary_ids, generator)
            region, image = data['prompt_masks'][row].cpu(), int(data['image1'][row])
            rows.append(caption_row(vocabulary, base.config.num_image_tokens, image, region, corrupted))
            replaced.append(positions)
        batch, hidden_states = base.read(rows, images)
        # Position i of the caption is predicted by the state one before it.
        spans = [
            hidden_states[index, len(row.input_ids) - len(caption) - 1 : len(row.input_ids) - 1]
            for index, (row, caption) in enumerate(zip(rows, ids))
        ]
        lengths = [len(caption) for caption in ids]
        logits = list(base.logits(torch.cat(spans)).split(lengths))
        noise = [base.generator(step, 'gumbel', data['sample_ids'][row]) for row in pseudo]
        bridged = self.bridge(logits, noise, base.network.token_embeddings(), vocabulary)
        denoise = positions_loss(logits, ids, replaced)
        figures = dict(bridge_entropy=bridged.entropy, bridge_agreement=bridged.agreement)
        return bridged.embeds, bridged.ids, denoise, figures

    def _slot_row(self, data: Mapping, step: int, row: int, caption: str, soft: torch.Tensor | None) -> Row:
        """Segmentation row on image 2, with text or a soft caption in the slot."""
        question, answer = self.base.draw_templates(step, data['sample_ids'][row])
        common = dict(
            vocabulary=self.base.vocabulary,
            num_image_tokens=self.base.config.num_image_tokens,
            image=int(data['image2'][row]),
            question=question,
            answer=answer,
        )
        if soft is not None:
            return soft_segmentation_row(caption=soft, **common)
        return segmentation_row(class_name=self._slot_text(caption), **common)

    def _slot_text(self, caption: str) -> str:
        """A caption as it stands in the slot: the protocol's phrase, cut to T tokens."""
        text = prompts.phrase(caption)
        ids = self.base.vocabulary.encode(text)
        return text if len(ids) <= self.max_caption_len else self.base.vocabulary.decode(ids[: self.max_caption_len])

    def _without_final_stop(self, ids: list[int]) -> list[int]:
        """Drop a final '.' that stands as a token of its own, unless it is all there is."""
        is_stop = len(ids) > 1 and self.base.vocabulary.pieces[ids[-1]] == b'.'
        return ids[:-1] if is_stop else ids

    # -- loop 2: caption to mask' to caption ----------------------------------------------------------------------

    def loop2(self, data: Mapping, step: int) -> dict:
        """Find mask' from a human caption, then describe mask'; the description is compared with the caption.

        mask' enters the second step through the region grid, without gradient.

        Returns:
            As :meth:`loop1`.

        Raises:
            ValueError: for a row without caption.
        """
        if None in data['captions']:
            sample = data['sample_ids'][data['captions'].index(None)]
            raise ValueError(f'{sample} has no caption: data without captions belongs to loop 1 (train_dataloader), '
                             'not to train_cfg.loop2_dataloader')
        base = self.base
        images = base.encode(data['pixel_values'], data['g_pixel_values'])
        captions = data['captions']
        rows = [self._slot_row(data, step, row, caption, None) for row, caption in enumerate(captions)]
        batch, hidden_states = base.read(rows, images)
        logits = base.segment(batch, hidden_states, images)
        regions = predicted_regions(logits.detach(), base.config.region_grid).cpu()
        described = [
            caption_row(base.vocabulary, base.config.num_image_tokens, int(data['image2'][row]), region, captions[row])
            for row, region in enumerate(regions)
        ]
        caption_batch, caption_states = base.read(described, images)
        weights = usable_weights(data)
        parts = dict(
            caption=weights @ base.token_loss(caption_batch, caption_states),
            answer=weights @ base.token_loss(batch, hidden_states),
        )
        loss = parts['caption'] + self.answer_weight * parts['answer']
        if self.mask_weight:
            points = [base.generator(step, 'points', sample_id) for sample_id in data['sample_ids']]
            bce, dice = base.mask_losses(logits, data['masks2'], points)
            parts['mask'] = weights @ (bce + dice)
            loss = loss + self.mask_weight * parts['mask']
        output = dict(loss=loss) | {name: float(part.detach()) for name, part in parts.items()}
        output['empty_mask'] = float((logits.detach() <= 0).flatten(1).all(dim=1).float().mean())
        return output


def predicted_regions(logits: torch.Tensor, grid: int) -> torch.Tensor:
    """Cells (R, grid, grid) that predicted masks touch; an empty prediction turns on the cell of its highest logit."""
    cells = torch.nn.functional.adaptive_max_pool2d(logits[:, None].float(), grid)[:, 0]
    best = torch.zeros_like(cells, dtype=torch.bool).flatten(1)
    best.scatter_(1, cells.flatten(1).argmax(dim=1, keepdim=True), True)
    return (cells > 0) | best.view_as(cells)

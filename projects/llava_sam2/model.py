"""The trainable base model: the network with its tokenizer, LoRA, frozen parts and losses, as an mmengine model."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from mmengine.logging import MessageHub, print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from peft import LoraConfig, get_peft_model

from .batches import BatchPreprocessor, object_grid, usable_weights
from .compiled_layers import check_memory_budget, compile_layers
from .dropout import quicken_dropout
from .initialisation import build_network, initialise_grounding, initialise_seg_head
from .losses import PointMaskLoss, token_cross_entropy
from .portable import prompts
from .portable.configuration import Sa2VAConfig
from .portable.key_maps import is_lora, is_token_rows
from .portable.network import binary_masks
from .portable.sequences import Batch, Row, on_device, pad_rows
from .portable.vocabulary import Vocabulary
from .precision import DTYPES, autocast_beside, float_buffers, restore_buffers
from .randomness import seed_for
from .text_rows import TextRows
from .tokenizer import build_tokenizer
from .trainable import check_parts, freeze, unused_masks
from .weights.loading import load_pretrained
from .weights.sources import config_of_source, resolved
from .weights.token_rows import TOKEN_MODULES, added_token_ids

_LORA_LAYERS = ('q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj')


@dataclass
class Images:
    """What the two frozen encoders see in the distinct images of a batch, computed once per step and shared.

    Attributes:
        vision: (I, n, 4C), InternViT before the projector.
        maps: SAM 2's three feature maps before ``conv_s0`` and ``conv_s1``, of the images that are segmented.
        segmented: which ones these are, ascending.
    """

    vision: torch.Tensor
    maps: list[torch.Tensor]
    segmented: list[int]


@MODELS.register_module()
class VideoLLaVASAMModel(BaseModel):
    """Sa2VA as it is trained.

    Args:
        tokenizer: folder of the tokenizer, or ``dict(type=callable, ...)`` that builds one.
        network: sizes, as arguments of :class:`Sa2VAConfig`. With ``pretrained`` they come from its config.json, and
            what is stated here must agree with it.
        pretrained: weights to start from: a folder with config.json in the released layout, or a file or dict of what
            :mod:`llava_sam2.weights.sources` lists, such as ``dict(mllm=folder, sam2=file)``. With a file alone
            ``network`` must state all sizes.
        random_weights: build from ``network`` without weights, and say so.
        dtype: ``float32`` or ``bfloat16``, of the frozen weights. Trained ones are fp32; beside bf16 ones passes run
            under autocast, unless the whole module has been cast, as DeepSpeed's bf16 does.
        trainable: keys of :data:`~llava_sam2.trainable.TRAINABLE_PARTS`; everything else is frozen, and so is what can
            never get a gradient.
        train_unused_masks: train the hypernetworks of masks that ``mask_selection`` never takes, as version 0.1.0 did:
            weight decay shrinks them, and nothing depends on them. For resuming its runs, where it is set by itself.
        lora: ``r``, ``alpha`` and ``dropout`` of LoRA on all linear layers of the language model, or None.
        train_token_rows: with LoRA, train the embedding and head rows of the five added tokens too. Needed to start
            from InternVL, which has none.
        loss_mask: ``weight``, ``num_points``, ``oversample_ratio`` and ``importance_ratio`` of the mask loss.
        loss_dice: ``weight`` and ``eps``.
        mask_loss: a registered class in place of these two, called as :class:`~llava_sam2.losses.PointMaskLoss` is.
        single_template_steps: so many steps ask and answer in one way only. From random weights the ``[SEG]`` state
            else varies more with the wording of the answer than with the phrase (forty times in a fit of 15 rows), and
            masks did not learn to follow the phrase in 4 000 steps.
        checkpointing: recompute activations of the language model in the backward pass.
        compile: compile the decoder layers of the language model (inductor): faster on a GPU after a minute or two, and
            once more for each new kind of shape.
        memory_budget: with ``compile`` and without ``checkpointing``, the share of activations that a decoder layer
            keeps for the backward pass, 0..1; it recomputes what is cheapest.
        seed: first part of the key of every random draw.

    Raises:
        ValueError: without ``pretrained`` and without ``random_weights=True``; a run that silently starts from
            random weights is the most expensive of mistakes.
    """

    def __init__(
        self,
        tokenizer: str | dict | Callable,
        network: dict | None = None,
        pretrained: str | dict | None = None,
        random_weights: bool = False,
        dtype: str = 'float32',
        trainable: Sequence[str] = ('mlp1', 'text_hidden_fcs', 'mask_decoder'),
        train_unused_masks: bool = False,
        lora: dict | None = None,
        train_token_rows: bool = False,
        loss_mask: dict | None = None,
        loss_dice: dict | None = None,
        mask_loss: dict | None = None,
        single_template_steps: int = 0,
        checkpointing: bool = False,
        compile: bool = False,
        memory_budget: float = 1.0,
        seed: int = 0,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(data_preprocessor=data_preprocessor or dict(type=BatchPreprocessor))
        if (pretrained is None) == (not random_weights):
            raise ValueError(
                f'model.pretrained={pretrained!r} and model.random_weights={random_weights}: set model.pretrained to a '
                'folder of weights, or model.random_weights=True, not both (without any download the 4B model runs by '
                'configs/rehearsal_4b.py)'
            )
        check_parts(trainable)
        if dtype not in DTYPES:
            raise ValueError(f'model.dtype={dtype!r} is unknown, use one of {list(DTYPES)}')
        if train_token_rows and lora is None:
            raise ValueError('model.train_token_rows=True trains rows beside LoRA: set model.lora, or train all of '
                             '"language_model"')
        self.dtype = DTYPES[dtype]
        if pretrained is None:
            if network is None:
                raise ValueError('model.random_weights=True needs the sizes in model.network')
            config = Sa2VAConfig(**network)
        else:
            source = resolved(pretrained)
            config = config_of_source(source, network)
        config.max_num_tiles = (network or {}).get('max_num_tiles', 1)  # what is trained, whatever the folder reads
        tokens = build_tokenizer(tokenizer)
        if pretrained is not None and 'mllm' in source:  # which has no rows for the added tokens yet
            config.llm_config.vocab_size = max(config.llm_config.vocab_size, len(tokens))
        self.config = config
        self.vocabulary = Vocabulary(tokens, config.llm_config.vocab_size, config.chat_template)
        self.network = build_network(config, self.dtype)
        freeze(self.network, trainable, train_unused_masks)
        if pretrained is None:
            initialise_grounding(self.network)
        else:
            # Before LoRA wraps the language model: docs/decisions.md, "Base weights are loaded before LoRA".
            rows_are_trained = train_token_rows or 'language_model' in trainable
            report = load_pretrained(
                self.network, source, token_ids=added_token_ids(tokens),
                train_token_rows=rows_are_trained and 'text_hidden_fcs' in trainable,
            )
            if 'text_hidden_fcs.0.weight' in report.drawn:
                initialise_seg_head(self.network)
            print_log(str(report), logger='current')
        self.random_weights = random_weights
        #: Fingerprint of the weights that training starts from.
        self.fingerprint = 'random weights' if random_weights else report.fingerprint
        self.mask_loss = (
            MODELS.build(mask_loss) if mask_loss else PointMaskLoss(**(loss_mask or {}), dice=loss_dice)
        )
        self.text_rows = TextRows(self.vocabulary, config, seed, single_template_steps)
        if lora is not None:
            self._add_lora(**lora, token_rows=train_token_rows)
        if checkpointing:
            # The reentrant form makes autograd.grad return None for every LoRA tensor without a word.
            self.network.language_model.gradient_checkpointing_enable(dict(use_reentrant=False))
        #: Whether inductor compiles parts of it.
        self.compiled = compile
        check_memory_budget(memory_budget, compile, checkpointing)
        if compile:
            compile_layers(self.network.language_model, memory_budget)
        self._trained = tuple(self.trainables().values())[:1]  # a tuple, lest it be registered once more
        self._buffers_fp32 = float_buffers(self.network)

    @property
    def seed(self) -> int:
        """First part of the key of every random draw."""
        return self.text_rows.seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self.text_rows.seed = seed

    # -- what is trained ------------------------------------------------------------------------------------------

    def _add_lora(self, r: int, alpha: int, dropout: float = 0.0, token_rows: bool = False) -> None:
        ids = sorted(added_token_ids(self.vocabulary.tokenizer).values())
        config = LoraConfig(
            r=r, lora_alpha=alpha, lora_dropout=dropout, bias='none', target_modules=list(_LORA_LAYERS),
            # For embedding and head: a plain list would leave out the head, which is not tied to the embedding.
            trainable_token_indices={name: ids for name in TOKEN_MODULES} if token_rows else None,
        )
        keep = {name for name, p in self.network.named_parameters() if p.requires_grad}
        # The layers are replaced in place, so the network keeps its own Qwen2 class and no wrapper stands in between.
        get_peft_model(self.network.language_model, config)
        quicken_dropout(self.network.language_model)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad = name in keep or is_lora(name) or is_token_rows(name)
            if is_token_rows(name):
                parameter.data = parameter.data.float()  # as LoRA's already are

    def trainables(self) -> dict[str, torch.nn.Parameter]:
        """Name (as in ``state_dict``) to parameter, in a fixed order."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def unused_masks(self) -> dict[str, torch.nn.Parameter]:
        """Like :meth:`trainables` what is frozen since ``mask_selection`` never takes it."""
        prefixes = tuple(f'network.{prefix}' for prefix in unused_masks(self.network))
        return {name: p for name, p in self.named_parameters() if name.startswith(prefixes) and not p.requires_grad}

    def init_weights(self) -> None:
        """Nothing to do. The runner calls this, and transformers' own version would draw LoRA's zeros anew."""

    def check_token_rows(self) -> None:
        """Warn when the embeddings of ``[SEG]`` and the region tokens are random and stay so."""
        if self.random_weights and not self.network.token_embeddings().requires_grad:
            print_log(
                'NOTHING CAN BE LEARNED in this run, it is good for rehearsals and benchmarks only: the weights are '
                f'random, and the token rows of {" ".join(prompts.ADDED_TOKENS)} stay so. To learn, start from trained '
                'weights (model.base.pretrained) or train the rows (add "language_model" to model.base.trainable)',
                logger='current', level=logging.WARNING,
            )

    def precision(self) -> AbstractContextManager:
        """Context of one pass, see :func:`autocast_beside`."""
        return autocast_beside(self.dtype, *self._trained or (None, ))

    def restore_fp32_buffers(self) -> None:
        """Give the buffers their fp32 values back after a cast of the whole module, as DeepSpeed's bf16 does.

        In bf16 RoPE's phases are off by 4 rad at position 3 500, those of SAM 2's positional encoding by 0.14 rad.
        """
        restore_buffers(self.network, self._buffers_fp32)

    def train(self, mode: bool = True) -> 'VideoLLaVASAMModel':
        """Frozen encoders stay in evaluation mode. Only modules whose mode changes are touched: there are thousands."""
        encoders = (self.network.vision_model, self.network.grounding_encoder)
        frozen = {each for encoder in encoders if not any(p.requires_grad for p in encoder.parameters())
                  for each in encoder.modules()}
        for module in self.modules():
            if module.training != (mode and module not in frozen):
                module.training = not module.training
        return self

    # -- passes ---------------------------------------------------------------------------------------------------

    def encode(self, pixel_values: torch.Tensor, g_pixel_values: torch.Tensor,
               segmented: Iterable[int] | None = None) -> Images:
        """Encode the distinct images of a batch, without a graph where the encoder is frozen.

        Args:
            pixel_values, g_pixel_values: of I images.
            segmented: the images that masks are asked of; SAM 2 sees no other. Default all.
        """
        network = self.network
        chosen = sorted(set(range(len(g_pixel_values)) if segmented is None else segmented))
        with self._encoding(network.vision_model):
            vision = network.encode_vision(pixel_values)
        with self._encoding(network.grounding_encoder.vision_encoder):
            if len(chosen) < len(g_pixel_values):
                g_pixel_values = g_pixel_values[on_device(chosen, g_pixel_values.device)]
            maps = network.encode_grounding(g_pixel_values)
        return Images(vision, maps, chosen)

    @contextmanager
    def _encoding(self, encoder: torch.nn.Module) -> Iterator[None]:
        # A frozen encoder has weights of one type, so autocast would only slow it down.
        trained = any(p.requires_grad for p in encoder.parameters())
        with self.precision() if trained else torch.no_grad():
            yield

    def project(self, images: Images) -> torch.Tensor:
        """Image features (I, n, D) as the language model reads them."""
        with self.precision():
            return self.network.mlp1(images.vision)

    def pad(self, rows: Sequence[Row], side: str = 'right') -> Batch:
        ids = self.vocabulary.pad_id, self.vocabulary.image_id
        return pad_rows(rows, *ids, self.config.num_image_tokens, self.network.device, side)

    def read_rows(self, rows: Sequence[Row], images: Images) -> tuple[Batch, torch.Tensor]:
        """One pass of the language model: the padded batch and its last hidden states (B, L, D)."""
        batch = self.pad(rows)
        with self.precision():
            return batch, self.network.hidden_states(batch, self.project(images))

    def logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Next-token logits (..., V) of the given states only."""
        with self.precision():
            return self.network.logits(hidden_states)

    def token_loss(self, batch: Batch, hidden_states: torch.Tensor) -> torch.Tensor:
        """Cross-entropy (B,) of the supervised tokens; the head runs on their positions only."""
        logits = self.logits(hidden_states.flatten(0, 1)[batch.target_places - 1])
        labels = batch.labels.flatten()[batch.target_places]
        return token_cross_entropy(logits, labels, batch.target_rows, len(batch.rows))

    def segment(self, rows: Sequence[Row], hidden_states: torch.Tensor, images: Images) -> torch.Tensor:
        """Mask logits (R, h, w), one ``[SEG]`` per row, from the state at the token's own position.

        Rows of one image share its feature maps through SAM 2's point-batch axis.

        Args:
            rows: the first R of a batch padded on the right.
            hidden_states: (B, L, D) of the batch.
            images: encoded images.
        """
        if any(row.labels.count(self.vocabulary.seg_id) != 1 for row in rows):
            raise ValueError('every segmentation row needs exactly one supervised [SEG]')
        width = hidden_states.shape[1]
        places = [number * width + row.labels.index(self.vocabulary.seg_id) for number, row in enumerate(rows)]
        with self.precision():
            states = hidden_states.flatten(0, 1)[on_device(places, hidden_states.device)]
            embeds = self.network.text_hidden_fcs(states)
        return self.decode_masks(embeds, [row.image for row in rows], images)  # type: ignore[misc]

    def decode_masks(self, seg_embeds: torch.Tensor, image_of_row: Sequence[int], images: Images) -> torch.Tensor:
        """Mask logits (R, h, w) for ``[SEG]`` embeddings (R, d) of rows that may share images."""
        used, most, places = object_grid(image_of_row)
        places = on_device(places, seg_embeds.device)
        grouped = seg_embeds.new_zeros(len(used) * most, seg_embeds.shape[-1]).index_copy(0, places, seg_embeds)
        maps = images.maps
        if used != images.segmented:
            held = on_device([images.segmented.index(image) for image in used], seg_embeds.device)
            maps = [fmap[held] for fmap in maps]
        with self.precision():
            masks = self.network.decode_masks(maps, grouped.view(len(used), most, -1))
        return masks.flatten(0, 1)[places]

    def mask_losses(self, logits: torch.Tensor, masks: torch.Tensor, keys: torch.Tensor
                    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The two weighted losses (R,) of the configured mask loss, see :class:`~llava_sam2.losses.PointMaskLoss`."""
        return self.mask_loss(logits, masks, keys)

    # -- supervised training --------------------------------------------------------------------------------------

    def forward(
        self, data: Mapping, data_samples: None = None, mode: str = 'loss'
    ) -> dict[str, torch.Tensor] | list[torch.Tensor]:
        """Supervised losses of a collated batch (``mode='loss'``), see :meth:`supervised_losses`, or a mask for each
        of its rows (``mode='predict'``), see :meth:`forced_masks`."""
        if mode == 'loss':
            return self.supervised_losses(data, MessageHub.get_current_instance().runtime_info.get('iter', 0))
        if mode == 'predict':
            return list(self.forced_masks(data))
        raise ValueError(f'VideoLLaVASAMModel.forward knows the modes "loss" and "predict", not {mode!r}')

    @torch.no_grad()
    def forced_masks(self, data: Mapping) -> torch.Tensor:
        """Masks (R, G, G), bool, of a collated batch with captions by the ``forced`` protocol: the answer is given.

        Fast, for monitoring. It is not the protocol of published numbers, in which the model must say ``[SEG]`` itself.

        Raises:
            ValueError: for a row without caption.
        """
        if None in data['captions']:
            sample = data['sample_ids'][data['captions'].index(None)]
            raise ValueError(f'{sample} has no caption to find: give val_dataloader a data set of expressions')
        rows = [self.text_rows.monitored(*each) for each in zip(data['image2'].tolist(), data['captions'])]
        images = self.encode(data['pixel_values'], data['g_pixel_values'], data['image2'].tolist())
        _, hidden_states = self.read_rows(rows, images)
        return binary_masks(self.segment(rows, hidden_states, images)[:, None], data['masks2'].shape[-2:])[:, 0]

    def supervised_losses(self, data: Mapping, step: int, short_captions: bool = False) -> dict[str, torch.Tensor]:
        """Referring segmentation of every captioned object, and region captions of those that are described.

        Args:
            data: a collated batch in which every row has a caption; ``describes`` says which captions are full
                descriptions and not mere phrases.
            step: keys the random draws.
            short_captions: phrases are captions too, of the question for a short one.

        Returns:
            ``loss_mask``, ``loss_dice``, ``loss_answer``, ``loss_caption``; means over the global batch.
        """
        count = len(data['captions'])
        asked = zip(data['sample_ids'], data['image2'].tolist(), data['captions'])
        rows = [self.text_rows.segmentation(step, *each) for each in asked]
        described = [index for index, describes in enumerate(data['describes']) if describes or short_captions]
        to_describe = zip(data['image1'].tolist(), data['prompt_masks'], data['captions'], data['describes'])
        rows += [self.text_rows.description(image1, region, caption, short=not describes)
                 for image1, region, caption, describes in to_describe if describes or short_captions]
        images = self.encode(data['pixel_values'], data['g_pixel_values'], data['image2'].tolist())
        batch, hidden_states = self.read_rows(rows, images)
        token_loss = self.token_loss(batch, hidden_states)
        logits = self.segment(rows[:count], hidden_states, images)
        bce, dice_loss = self.mask_losses(logits, data['masks2'], self.keys(step, 'points', data['sample_ids']))
        weights = usable_weights(data)
        return dict(
            loss_mask=weights @ bce,
            loss_dice=weights @ dice_loss,
            loss_answer=weights @ token_loss[:count],
            loss_caption=weights[described] @ token_loss[count:],
        )

    def keys(self, step: int, purpose: str, samples: Sequence[str], device: torch.device | str | None = None
             ) -> torch.Tensor:
        """Keys (R,) of what :mod:`llava_sam2.randomness` draws for samples, on the model's or another device."""
        return on_device([seed_for(self.seed, step, purpose, sample) for sample in samples],
                         self.network.device if device is None else device)

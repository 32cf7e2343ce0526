"""The model that users load: images, frames, regions and a dialogue in, text and masks out.

An exported folder holds this file and those that it imports, so that it needs nothing of this project:

    model = AutoModel.from_pretrained(folder, trust_remote_code=True, dtype=torch.bfloat16, device_map='auto')
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.predict_forward(image=image, text='<image>\\nPlease segment the red cup in this image.', tokenizer=tokenizer)

transformers 4.57.3 to 4.57.6 warn of a wrong Mistral pattern for every large local tokenizer; this one is none, and the
advice to fix it would spoil it. ``AutoTokenizer.from_pretrained(folder, fix_mistral_regex=False)`` is silent.
"""

import copy
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import snapshot_download
from PIL import Image
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase
from transformers.dynamic_module_utils import get_relative_import_files

# transformers copies only the files that this one imports itself; some are needed by the others alone.
from .aligned_head import head_logits  # noqa: F401
from .answers import answer_rows
from .configuration import Sa2VAConfig, config_of_folder
from .generation import Decoded  # noqa: F401
from .idle_attention import leave_out_idle_attention  # noqa: F401
from .image_processing import grounding_pixels, vision_pixels, vision_tiles
from .key_maps import is_lora  # noqa: F401
from .network import Sa2VANetwork, binary_masks
from .pickled import CheckpointError  # noqa: F401
from .prompts import IMAGE_PLACEHOLDER, IMG_CONTEXT, image_blocks, region_list
from .published import from_published  # noqa: F401
from .regions import region_grid, region_masks
from .released import fill, plan_release, refuse_unmerged, write_tensors
from .rows import chat_row
from .sequences import Row  # noqa: F401
from .shared_prefixes import shared_prefixes  # noqa: F401
from .static_decoding import KeptDecoder
from .static_layers import obstacle  # noqa: F401
from .stored import open_tensors  # noqa: F401
from .templates import ChatTemplate
from .video_memory import expected_video_memory  # noqa: F401
from .vocabulary import Vocabulary

#: Frames of a video that the language model sees; masks are decoded in all of them.
NUM_FRAMES_READ = 5
#: Upper bound of an answer where generation_config.json says nothing.
MAX_NEW_TOKENS = 2048
_AUTO_MAP = dict(
    AutoConfig='configuration.Sa2VAConfig', AutoModel='chat.Sa2VAChatModel', AutoModelForCausalLM='chat.Sa2VAChatModel'
)
_HUB_OPTIONS = ('cache_dir', 'force_download', 'local_files_only', 'proxies', 'revision', 'token')
#: What transformers' Auto classes and the published examples also pass. Attention is torch's SDPA in any case, and
#: memory is never taken twice.
_IDLE_OPTIONS = (
    '_from_auto', '_commit_hash', 'adapter_kwargs', 'code_revision', 'low_cpu_mem_usage', 'trust_remote_code',
    'use_flash_attn', 'use_safetensors',
)
#: Further options of transformers that may be passed with these values, which ask for nothing.
_OFF_AT_LOADING = dict(attn_implementation='sdpa', load_in_4bit=False, load_in_8bit=False)
_OFF_AT_SAVING = dict(safe_serialization=True, push_to_hub=False, save_peft_format=True)


class Sa2VAChatModel(Sa2VANetwork):
    """Sa2VA for use: weights in the released layout, and the interface of the released models."""

    def __init__(self, config: Sa2VAConfig):
        super().__init__(config)
        #: SAM 2's video memory, which is only kept for saving.
        self.carried: dict[str, torch.Tensor] = {}
        self.generation_config = GenerationConfig(max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        self._vocabulary: Vocabulary | None = None
        #: Decodes with a cache and, on a GPU, a captured graph of its own; None decodes plainly, and
        #: ``KeptDecoder(compile=True)`` takes seconds at the first question and a third less for each token.
        self.decoder: KeptDecoder | None = KeptDecoder()

    # -- answers ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict_forward(
        self,
        image: Image.Image | None = None,
        video: Sequence[Image.Image] | None = None,
        text: str | None = None,
        past_text: str = '',
        mask_prompts: Sequence | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        max_new_tokens: int | None = None,
    ) -> dict:
        """Answer a question, greedily, with a mask for each ``[SEG]`` in the answer.

        Args:
            image: any size and mode.
            video: frames of one size in place of an image. The language model sees the first five; masks are decoded
                in every frame on its own, as trained.
            text: the question. With an image or a video, ``<image>`` stands where it is to be read.
            past_text: the dialogue so far, put before the question: ``config.chat_template.turn(text, prediction)`` of
                each turn. It may hold the ``<image>``.
            mask_prompts: regions of the image, non-zero inside, called region1, region2, ... in the text: a list of
                arrays or tensors (R, H, W) or (H, W), of pictures with one channel, or of paths of such.
            tokenizer: of this model; may be left out in later calls.
            max_new_tokens: default ``generation_config.max_new_tokens``.

        Returns:
            ``prediction``, the answer without its terminator, and ``prediction_masks``, a bool array
            (frames, H, W) in the original size for each ``[SEG]`` of it.

        Raises:
            ValueError: the arguments contradict each other, or a mask prompt is empty.
        """
        vocabulary = self._vocabulary_of(tokenizer)
        frames = _frames(image, video)
        regions = self._regions(mask_prompts, is_image=image is not None)
        pixels = self._vision_pixels(frames, is_image=image is not None)
        prompt = _prompt(self.config.chat_template, text, past_text or '', len(pixels), self.config.num_image_tokens,
                         video is not None, regions)
        row = chat_row(vocabulary, prompt, range(len(pixels)), regions)
        features = self._features(pixels)
        limit = max_new_tokens or self.generation_config.max_new_tokens or MAX_NEW_TOKENS
        decoder = self.decoder and self.decoder.of(self, vocabulary)
        (said,) = answer_rows(self, vocabulary, [row], features, limit, decoder=decoder)
        return dict(prediction=said.text, prediction_masks=self._masks(said.seg_embeds, frames))

    def _vocabulary_of(self, tokenizer: PreTrainedTokenizerBase | None) -> Vocabulary:
        if tokenizer is None and self._vocabulary is None:
            raise ValueError('the first call of predict_forward needs tokenizer=AutoTokenizer.from_pretrained(folder)')
        if tokenizer is not None and (self._vocabulary is None or self._vocabulary.tokenizer is not tokenizer):
            self._vocabulary = Vocabulary(tokenizer, self.config.llm_config.vocab_size, self.config.chat_template)
        return self._vocabulary

    def _regions(self, mask_prompts: Sequence | None, is_image: bool) -> torch.Tensor | None:
        """(R, grid, grid) bool, the cells that each region touches."""
        if mask_prompts is None:
            return None
        if not is_image:
            raise ValueError('mask_prompts are regions of an image: give image=, not video= or text alone')
        grids = [region_grid(masks, self.config.region_grid) for masks in region_masks(mask_prompts)]
        regions = torch.cat(grids) if grids else torch.zeros(0, 1, 1)
        empty = (~regions.flatten(1).any(dim=1)).nonzero()[:, 0].tolist() if len(regions) else [0]
        if empty:
            raise ValueError(f'region{empty[0] + 1} of mask_prompts has no pixel inside')
        return regions

    def _vision_pixels(self, frames: Sequence[torch.Tensor], is_image: bool) -> torch.Tensor:
        """(T, 3, S, S): the tiles of an image, or the frames that are read; T = 0 without any."""
        size = self.config.image_size
        if is_image:
            return vision_tiles(frames[0], size, self.config.max_num_tiles)
        seen = [vision_pixels(frame, size) for frame in frames[:NUM_FRAMES_READ]]
        return torch.stack(seen) if seen else torch.zeros(0, 3, size, size)

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(T, n, D) image features as the language model reads them."""
        if len(pixels) == 0:
            width = self.config.llm_config.hidden_size
            return torch.zeros(0, self.config.num_image_tokens, width, device=self.device)
        return self.mlp1(self.encode_vision(pixels.to(self.device)))

    def _masks(self, seg_embeds: torch.Tensor, frames: Sequence[torch.Tensor]) -> list[np.ndarray]:
        """A mask (frames, H, W) for each ``[SEG]`` embedding (K, d)."""
        if not len(seg_embeds) or not frames:
            return []
        size = self.config.grounding_size
        masks = []
        for frame in frames:
            maps = self.encode_grounding(grounding_pixels(frame, size)[None].to(self.device))
            logits = self.decode_masks(maps, seg_embeds[None])
            masks.append(binary_masks(logits, (size, size), frame.shape[-2:])[0].cpu().numpy())
        return list(np.stack(masks, axis=1))

    def generate(self, *args, **options) -> None:
        """There is none: what is generated here is an answer with its masks."""
        raise NotImplementedError(
            'Sa2VAChatModel answers by predict_forward(image=..., text=..., tokenizer=...), with the masks. The bare '
            'language model generates by model.language_model.generate(input_ids=... or inputs_embeds=...)'
        )

    # -- weights ----------------------------------------------------------------------------------------------------

    def _apply(self, *args, **options) -> 'Sa2VAChatModel':
        """What moves or casts the model; the decoder's memory does not stay behind."""
        if self.decoder is not None:
            self.decoder.forget()
        return super()._apply(*args, **options)

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Module:
        """Give embedding and head other numbers of rows, as every model of transformers does; the config follows."""
        embedding = self.language_model.resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        self._vocabulary = None  # its tables have a row per token
        return embedding

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        config: Sa2VAConfig | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: str | int | torch.device | Mapping | None = None,
        **options,
    ) -> 'Sa2VAChatModel':
        """Load a folder of weights under the released names, strictly.

        Args:
            source: folder, ours or a released one, or the name of a repository on the Hugging Face Hub.
            config: in place of the folder's config.json.
            dtype: of the weights; ``'auto'`` takes that of config.json, None float32. ``torch_dtype`` is its old name.
            device_map: one device, or ``'auto'``: the first accelerator if there is one. None is the CPU.
            options: of the Hub (``revision``, ``token``, ...).

        Returns:
            The model in evaluation mode.

        Raises:
            CheckpointError: a tensor is missing, not expected or of another shape.
            TypeError: an option that this model does not have.
        """
        hub = {name: options.pop(name) for name in _HUB_OPTIONS if options.get(name) is not None}
        _refuse_options('from_pretrained', options, {*_IDLE_OPTIONS, *_HUB_OPTIONS}, _OFF_AT_LOADING)
        folder = Path(source)
        if not folder.is_dir():
            folder = Path(snapshot_download(str(source), allow_patterns=['*.json', '*.safetensors'], **hub))
        config = config_of_folder(folder) if config is None else config
        dtype = _dtype(torch_dtype if dtype is None else dtype, config)
        with torch.device('meta'):
            model = cls(config)
        model.carried = fill(model, folder, dtype, _device(device_map))
        if (folder / 'generation_config.json').is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
        model.name_or_path = config._name_or_path = str(source)
        return model.eval()

    def save_pretrained(
        self,
        folder: str | Path,
        is_main_process: bool = True,
        state_dict: Mapping[str, torch.Tensor] | None = None,
        *,
        max_shard_size: int | str = '5GB',
        **options,
    ) -> None:
        """Write weights under the released names, settings and modelling files; :meth:`from_pretrained` inverted.

        Args:
            folder: need not exist.
            is_main_process: False writes nothing: of several processes one writes.
            state_dict: in place of ``self.state_dict()``, with its names and shapes: weights gathered from several
                processes.
            max_shard_size: bytes of a file, or such as ``'5GB'``.
            options: of transformers, where they ask for what is done anyway.

        Raises:
            ValueError: PEFT weights are still beside the weights, or ``state_dict`` is of another model.
            TypeError: an option that this model does not have.
        """
        _refuse_options('save_pretrained', options, {'save_function'}, _OFF_AT_SAVING)
        refuse_unmerged(self)
        if not is_main_process:
            return
        folder = Path(folder)
        plan = plan_release(self, carried=self.carried, state=state_dict)
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder, plan, max_shard_size)
        write_settings(folder, self.config, self.dtype, self.generation_config)


def write_settings(
    folder: Path, config: Sa2VAConfig, dtype: torch.dtype, generation_config: GenerationConfig
) -> None:
    """Write config.json, generation_config.json and the modelling files of an exported folder."""
    config = copy.deepcopy(config)
    config.architectures = [Sa2VAChatModel.__name__]
    config.auto_map = dict(_AUTO_MAP)
    config.dtype = dtype
    config.save_pretrained(folder)
    generation_config.save_pretrained(folder)
    for file in modelling_files():
        target = folder / file.name
        if not target.exists() or not target.samefile(file):
            shutil.copyfile(file, target)


def modelling_files() -> list[Path]:
    """The files that an exported folder needs: this one and all that it imports, directly or not."""
    return sorted({Path(__file__), *map(Path, get_relative_import_files(__file__))})


def _refuse_options(method: str, options: Mapping, idle: set[str], off: Mapping) -> None:
    for name in sorted(set(options) - idle):
        if options[name] is not None and (name not in off or options[name] != off[name]):
            remedy = f'only {name}={off[name]!r}' if name in off else 'leave it out'
            raise TypeError(f'Sa2VAChatModel.{method} has no option {name!r}: {remedy}')


def _dtype(dtype: torch.dtype | str | None, config: Sa2VAConfig) -> torch.dtype:
    if dtype == 'auto':
        dtype = config.dtype
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype.removeprefix('torch.'), dtype)
    dtype = torch.float32 if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f'dtype={dtype!r} is no floating-point type, use torch.bfloat16, torch.float32 or "auto"')
    return dtype


def _device(device_map: str | int | torch.device | Mapping | None) -> torch.device:
    if isinstance(device_map, Mapping):
        if set(device_map) != {''}:
            raise ValueError(f'device_map={dict(device_map)} splits the model, which lies on one device: use "auto"')
        device_map = device_map['']
    if device_map == 'auto':
        device_map = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device('cpu' if device_map is None else device_map)


def _frames(image: Image.Image | None, video: Sequence[Image.Image] | None) -> list[torch.Tensor]:
    """uint8 (3, H, W) of each frame; one of an image, none of neither."""
    if image is not None and video is not None:
        raise ValueError('give image= or video=, not both')
    pictures = [image] if image is not None else list(video or [])
    if video is not None and len({picture.size for picture in pictures}) != 1:
        raise ValueError(f'video= must be frames of one size, got {len(pictures)} frames of several sizes or none')
    return [torch.from_numpy(np.array(picture.convert('RGB'))).permute(2, 0, 1) for picture in pictures]


def _prompt(
    template: ChatTemplate, text: str | None, past_text: str, num_images: int, num_tokens: int, is_video: bool,
    regions: torch.Tensor | None,
) -> str:
    """Whole text of the dialogue, ``<image>`` replaced by image and region tokens."""
    if text is None:
        raise ValueError('predict_forward needs text=')
    if not num_images:
        if IMAGE_PLACEHOLDER in past_text or IMG_CONTEXT in past_text:
            raise ValueError('past_text speaks of an image: give it again with image= or video=')
        return past_text + template.ask(text.replace(IMAGE_PLACEHOLDER, ''))
    dialogue = past_text + template.ask(text)
    if dialogue.count(IMAGE_PLACEHOLDER) + (IMG_CONTEXT in past_text) != 1:
        raise ValueError(
            f'text= or past_text= must say once where the image is to be read, as {IMAGE_PLACEHOLDER}; it is there '
            f'{dialogue.count(IMAGE_PLACEHOLDER)} times'
        )
    # Tiles are one block; frames are a block each.
    block = image_blocks(num_images, num_tokens) if is_video else image_blocks(1, num_images * num_tokens)
    if regions is not None:
        block += region_list(regions.flatten(1).sum(dim=1).tolist())
    return dialogue.replace(IMAGE_PLACEHOLDER, block)

"""Fixtures that every test may use."""

import gzip
import json
import resource
from pathlib import Path

import pytest
import torch
from own_folder import *  # noqa: F401,F403  a fixture: a folder of one's own pictures
from tiny_data import *  # noqa: F401,F403  fixtures: folders with small data in every format

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='session', autouse=True)
def index_dir(tmp_path_factory):
    """Indexes of the tests' data go to a folder of their own, also in the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('DUAL_LOOP_INDEX_DIR', str(tmp_path_factory.mktemp('indexes')))
        yield


@pytest.fixture(scope='session')
def checkout() -> Path:
    return CHECKOUT


@pytest.fixture(scope='session')
def shared_dir() -> Path:
    """The folder of reference material beside a developer's checkout; a user's clone has none."""
    folder = CHECKOUT.parent / 'shared'
    if not folder.is_dir():
        pytest.skip('no folder ../shared beside the checkout (reference material that a user clone does not have)')
    return folder


@pytest.fixture(scope='session')
def real_samples(shared_dir: Path) -> Path:
    folder = shared_dir / 'real_samples'
    if not folder.is_dir():
        pytest.skip('no folder ../shared/real_samples')
    return folder


@pytest.fixture
def small_files_only():
    """The kernel itself refuses files above 100 000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope='session')
def released_4b() -> dict[str, tuple[int, ...]]:
    """Name to shape of every tensor of the released 4B model, as published."""
    return name_table('sa2va_4b_keys')


def name_table(name: str) -> dict[str, tuple[int, ...]]:
    with gzip.open(CHECKOUT / 'tests' / 'golden' / f'{name}.json.gz') as file:
        return {name: tuple(shape) for name, shape in json.load(file).items()}


@pytest.fixture(scope='session')
def memory_64() -> dict[str, tuple[int, ...]]:
    """The same for SAM 2's video memory at a width of 64."""
    return name_table('memory_64_keys')


@pytest.fixture(scope='session')
def network_sizes() -> dict:
    """Sizes of the smallest network that has every part: 16 image tokens, masks of 32 x 32."""
    return dict(
        vision_config=dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                           image_size=112, patch_size=14, attention_bias=True, initializer_range=0.2),
        llm_config=dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                        intermediate_size=48, vocab_size=640, max_position_embeddings=512,
                        tie_word_embeddings=False, initializer_range=0.2),
        grounding_config=dict(image_size=128, embed_dim=8, num_heads=1, stages=(1, 1, 2, 1), global_att_blocks=(3,),
                              window_spec=(8, 4, 8, 4), d_model=32, decoder_mlp_dim=32),
        mask_selection='single',
    )


@pytest.fixture(scope='session')
def vocabulary():
    """Tables over the tokenizer of the shipped tiny model, with 640 rows as in its network."""
    from llava_sam2.portable.templates import PHI3_CHAT
    from llava_sam2.portable.vocabulary import Vocabulary
    from llava_sam2.tokenizer import load_tokenizer

    return Vocabulary(load_tokenizer(CHECKOUT / 'assets' / 'tiny'), 640, PHI3_CHAT)


@pytest.fixture(scope='session')
def build_base(network_sizes):
    """Build a tiny base model with reproducible random weights.

    LoRA's B is drawn as well (``stir=False`` leaves its zeros), else its A could get no gradient.
    """
    from llava_sam2.model import VideoLLaVASAMModel

    def build(stir: bool = True, **options):
        options = dict(
            tokenizer='assets/tiny', network=network_sizes, random_weights=True, lora=dict(r=2, alpha=4),
            loss_mask=dict(num_points=64),
        ) | options
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = VideoLLaVASAMModel(**options)
            for name, parameter in model.named_parameters():
                if stir and '.lora_B.' in name:
                    torch.nn.init.normal_(parameter, std=0.1)
        return model

    return build


@pytest.fixture(scope='session')
def build_loops(build_base):
    """Build a :class:`DualLoopModel` round a tiny base; ``base`` holds options of the base."""
    from dual_loop.models import DualLoopModel

    def build(base: dict | None = None, **options):
        return DualLoopModel(build_base(**(base or {})), **dict(topk=16, max_caption_len=6) | options)

    return build


@pytest.fixture(scope='session')
def make_sample():
    """A random sample as a data set gives it; ``pair=True`` gives two frames, ``key`` names and seeds the images.

    ``others`` are captions of further objects of the same images, in one sample.
    """

    def one_frame(seed: int, empty: bool) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        top, left = (int(torch.randint(80, (), generator=generator)) for _ in range(2))
        mask = torch.zeros(128, 128, dtype=torch.bool)
        if not empty:
            mask[top : top + 40, left : left + 30] = True
        pixels = torch.randint(256, (3, 128, 128), dtype=torch.uint8, generator=generator)
        return torch.randn(3, 112, 112, generator=generator), pixels, mask.view(4, 32, 4, 32).any(3).any(1), mask

    def make(key: int, caption: str | None = None, pair: bool = False, empty: bool = False, describes: bool = False,
             others: tuple[str | None, ...] = ()):
        sample = dict(caption=caption, source='synthetic', sample_id=f'sample{key}', describes=describes)
        for suffix in ('1', '2') if pair else ('',):
            seed = key + 1000 * (suffix == '2')
            names = ('pixel_values', 'g_pixel_values', 'prompt_masks', 'masks')
            sample |= {name + suffix: value for name, value in zip(names, one_frame(seed, empty))}
            sample['image_key' + suffix] = f'image{seed}'
            if others:
                objects = [one_frame(seed + 100_000 * number, empty)[2:] for number in range(1 + len(others))]
                sample |= {name + suffix: torch.stack(masks) for name, masks in zip(names[2:], zip(*objects))}
                sample['caption'] = [caption, *others]
        return sample

    return make


@pytest.fixture(scope='session')
def make_batch(make_sample):
    """Collate random samples given as dicts of arguments of ``make_sample``."""
    from dual_loop.datasets import collate_samples

    def make(*samples: dict):
        return collate_samples([make_sample(**sample) for sample in samples])

    return make

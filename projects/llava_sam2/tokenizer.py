"""Tokenizers: loading one, and training a small one of the same kind for the tiny model."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mmengine.registry import FUNCTIONS
from mmengine.utils import get_object_from_string
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from .download import download_command
from .paths import resolve
from .portable.prompts import ADDED_TOKENS, IMG_CONTEXT, IMG_END, IMG_START

# The split of Qwen2's tokenizer: punctuation runs may join, so that a final '.' and a terminator that is text have
# their seams where the real one has.
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


#: Ids of the released 4B tokenizer above its byte pairs; what stands between them is reserved.
_RELEASED_IDS = {
    '<|endoftext|>': 151643, '<|im_start|>': 151644, '<|im_end|>': 151645,
    IMG_START: 151665, IMG_END: 151666, IMG_CONTEXT: 151667,
    '<quad>': 151668, '</quad>': 151669, '<ref>': 151670, '</ref>': 151671, '<box>': 151672, '</box>': 151673,
    **{token: 151674 + index for index, token in enumerate(ADDED_TOKENS)},
}


def build_tokenizer(spec: str | Path | Mapping | Callable) -> PreTrainedTokenizerBase:
    """Tokenizer of a config: a folder, a callable, or ``dict(type=callable, ...)`` with its arguments.

    Raises:
        ValueError: ``type`` is not, and does not name, a callable.
    """
    if isinstance(spec, (str, Path)):
        return load_tokenizer(spec)
    arguments = dict(spec) if isinstance(spec, Mapping) else dict(type=spec)
    make = named = arguments.pop('type', None)
    if isinstance(named, str):  # a registered name, or a path as in a config that was dumped and read again
        make = FUNCTIONS.module_dict.get(named) or get_object_from_string(named)
    if not callable(make):
        raise ValueError(f'tokenizer has type={named!r}, which is neither registered in FUNCTIONS nor the dotted path '
                         'of something that can be called')
    return make(**arguments)


@FUNCTIONS.register_module()
def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Tokenizer from a local folder; nothing is downloaded and no remote code runs.

    Args:
        folder: relative paths are read against the checkout.

    Raises:
        FileNotFoundError: when the folder has no tokenizer.
    """
    folder = resolve(folder)
    if not (folder / 'tokenizer_config.json').is_file():
        raise FileNotFoundError(f'no tokenizer_config.json in {folder}; point model.tokenizer (with loops '
                                'model.base.tokenizer) to a tokenizer folder, or run '
                                f'`{download_command(folder)}`')
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def train_tokenizer(corpus: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in the manner of Qwen2, with InternVL's and Sa2VA's added tokens.

    Args:
        corpus: texts; include the prompts, so that they are short sequences.
        vocab_size: number of tokens, the added ones included.
    """
    added = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', IMG_START, IMG_END, IMG_CONTEXT, *ADDED_TOKENS]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_QWEN_SPLIT), behavior='isolated'),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(added),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in added])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token='<|im_end|>',
        pad_token='<|endoftext|>',
        clean_up_tokenization_spaces=False,
    )


@FUNCTIONS.register_module()
def stand_in_tokenizer(folder: str | Path = 'assets/tiny') -> PreTrainedTokenizerFast:
    """A small tokenizer with the ids of the released 4B one, for runs without any download.

    The byte pairs keep their low ids, the protocol's tokens have the released ids, and reserved entries fill the gaps,
    151 679 tokens in all. They are entries of the byte-pair table, not added tokens, of which each would slow down
    every call. Their names have spaces, so no text is ever encoded to one, and ``Vocabulary`` counts them as special.

    Args:
        folder: of the small tokenizer.
    """
    small = load_tokenizer(folder)
    backend = json.loads(small.backend_tokenizer.to_str())
    added = small.get_added_vocab()
    pairs = {token: index for token, index in backend['model']['vocab'].items() if token not in added}
    taken = {**pairs, **_RELEASED_IDS}
    free = set(range(max(_RELEASED_IDS.values()) + 1)) - set(taken.values())
    backend['model']['vocab'] = taken | {f'<reserved {index}>': index for index in sorted(free)}
    backend['added_tokens'] = [
        dict(id=index, content=token, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
        for token, index in _RELEASED_IDS.items()
    ]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)),
        eos_token='<|im_end|>',
        pad_token='<|endoftext|>',
        clean_up_tokenization_spaces=False,
    )

"""Tokenizers: loading one, and training a small one of the same kind for the tiny model."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from .prompts import ADDED_TOKENS, IMG_CONTEXT, IMG_END, IMG_START

# The split of Qwen2's tokenizer: punctuation runs may join, so that '.<|end|>' has its seams where the real one has.
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Tokenizer from a local folder; nothing is downloaded and no remote code runs.

    Raises:
        FileNotFoundError: when the folder has no tokenizer.
    """
    folder = Path(folder)
    if not (folder / 'tokenizer_config.json').is_file():
        raise FileNotFoundError(f'no tokenizer_config.json in {folder}; point model.tokenizer to a tokenizer folder')
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

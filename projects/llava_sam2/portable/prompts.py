"""Every string of the protocol but the markup of the chat templates: special tokens, questions, answers, prompts.

Training, evaluation and export build their text here and nowhere else. The strings are those of the released Sa2VA
models.
"""

from collections.abc import Sequence

from .templates import ChatTemplate

IMG_START, IMG_END, IMG_CONTEXT = '<img>', '</img>', '<IMG_CONTEXT>'
REGION_START, REGION_END = '<vp>', '</vp>'
SEG = '[SEG]'
#: Added to the InternVL tokenizer, in this order (ids 151674..151678 in the released 4B model).
ADDED_TOKENS = (SEG, '<p>', '</p>', REGION_START, REGION_END)
#: Stands for the image in a user's own text.
IMAGE_PLACEHOLDER = '<image>'

CAPTION_QUESTION = 'Please generate a detailed description for the given image region.'
#: The fixed question of monitoring, one of the questions of training.
EVALUATION_QUESTION = 'Please segment {class_name} in this image.'
#: The question of the released referring evaluation, which published numbers come from: with a space before it.
REFERRING_QUESTION = ' Please segment {class_name} in this image.'
#: The question of the released evaluation of short region captions (RefCOCOg).
SHORT_CAPTION_QUESTION = 'Please give me a short description of the region in the picture marked by region1.'

_PATTERNS = (
    'Can you segment the {class_name} in this image?',
    'Please segment {class_name} in this image.',
    'What is {class_name} in this image? Please respond with segmentation mask.',
    'What is {class_name} in this image? Please output segmentation mask.',
    'Could you provide a segmentation mask for the {class_name} in this image?',
    'Please identify and segment the {class_name} in this image.',
    'Where is the {class_name} in this picture? Please respond with a segmentation mask.',
    'Can you highlight the {class_name} in this image with a segmentation mask?',
)
#: Each pattern with and without its final punctuation.
SEGMENTATION_QUESTIONS = tuple(question for pattern in _PATTERNS for question in (pattern, pattern[:-1]))
SEGMENTATION_ANSWERS = (
    f'It is {SEG}.',
    f'Sure, {SEG}.',
    f'Sure, it is {SEG}.',
    f'Sure, the segmentation result is {SEG}.',
    f'{SEG}.',
)


def image_block(num_tokens: int) -> str:
    """The image as text: one context token per visual token, between the image tags."""
    return IMG_START + IMG_CONTEXT * num_tokens + IMG_END


def image_blocks(num_images: int, num_tokens: int) -> str:
    """Several frames, one block each."""
    return '\n'.join([image_block(num_tokens)] * num_images)


def region_list(num_region_tokens: Sequence[int]) -> str:
    """What follows the image when regions are asked about; a region's tokens repeat the image tokens it touches."""
    regions = ', '.join(
        f'region{index}{REGION_START}{IMG_CONTEXT * num_tokens}{REGION_END}'
        for index, num_tokens in enumerate(num_region_tokens, start=1)
    )
    return f'\nThere are {len(num_region_tokens)} part regions in the picture: {regions}.\n'


def phrase(caption: str) -> str:
    """A human sentence as it stands in the segmentation slot: lower case, one trailing '.' removed."""
    caption = ' '.join(caption.lower().split())
    return caption[:-1].rstrip() if caption.endswith('.') else caption


def segmentation_prompt(template: ChatTemplate, question: str, num_image_tokens: int, class_name: str) -> str:
    """Prompt that asks for the mask of ``class_name``."""
    return template.ask(f'{image_block(num_image_tokens)}\n{question.format(class_name=class_name)}')


def split_segmentation_prompt(template: ChatTemplate, question: str, num_image_tokens: int) -> tuple[str, str]:
    """The same prompt round its caption slot, for captions that exist only as embeddings.

    The text before the slot carries no trailing space: the space belongs to the first caption token.
    """
    before, after = segmentation_prompt(template, question, num_image_tokens, '\0').split('\0')
    if not before.endswith(' '):
        raise ValueError(f'the caption slot of {question!r} must follow a space')
    return before[:-1], after


def caption_prompt(
    template: ChatTemplate, num_image_tokens: int, num_region_tokens: int, question: str = CAPTION_QUESTION
) -> str:
    """Prompt that asks for a description of one region; its tokens repeat the image tokens that the mask touches."""
    return template.ask(image_block(num_image_tokens) + region_list([num_region_tokens]) + question)

"""The strings of the protocol."""

import pytest

from llava_sam2.portable import prompts
from llava_sam2.portable.templates import PHI3_CHAT


@pytest.mark.parametrize('class_name', ['red dog', 'left-most cup', 'café 2'])
@pytest.mark.parametrize('question', prompts.SEGMENTATION_QUESTIONS)
def test_soft_slot_has_the_tokens_of_the_full_prompt(vocabulary, question, class_name):
    before, after = prompts.split_segmentation_prompt(PHI3_CHAT, question, 4)
    assert f'{before} {class_name}{after}' == prompts.segmentation_prompt(PHI3_CHAT, question, 4, class_name)
    # Cut at the slot, the three pieces are the tokens of the whole: the seams do not show.
    pieces = [token for part in (before, f' {class_name}', after) for token in vocabulary.encode(part)]
    assert pieces == vocabulary.encode(prompts.segmentation_prompt(PHI3_CHAT, question, 4, class_name))


def test_questions_and_answers_are_those_of_the_released_models():
    assert prompts.SEGMENTATION_QUESTIONS == (
        'Can you segment the {class_name} in this image?',
        'Can you segment the {class_name} in this image',
        'Please segment {class_name} in this image.',
        'Please segment {class_name} in this image',
        'What is {class_name} in this image? Please respond with segmentation mask.',
        'What is {class_name} in this image? Please respond with segmentation mask',
        'What is {class_name} in this image? Please output segmentation mask.',
        'What is {class_name} in this image? Please output segmentation mask',
        'Could you provide a segmentation mask for the {class_name} in this image?',
        'Could you provide a segmentation mask for the {class_name} in this image',
        'Please identify and segment the {class_name} in this image.',
        'Please identify and segment the {class_name} in this image',
        'Where is the {class_name} in this picture? Please respond with a segmentation mask.',
        'Where is the {class_name} in this picture? Please respond with a segmentation mask',
        'Can you highlight the {class_name} in this image with a segmentation mask?',
        'Can you highlight the {class_name} in this image with a segmentation mask',
    )
    assert prompts.SEGMENTATION_ANSWERS == (
        'It is [SEG].', 'Sure, [SEG].', 'Sure, it is [SEG].', 'Sure, the segmentation result is [SEG].', '[SEG].')


def test_questions_of_evaluation():
    assert prompts.EVALUATION_QUESTION == 'Please segment {class_name} in this image.'
    assert prompts.REFERRING_QUESTION == ' Please segment {class_name} in this image.'
    assert prompts.CAPTION_QUESTION == 'Please generate a detailed description for the given image region.'
    assert prompts.SHORT_CAPTION_QUESTION == (
        'Please give me a short description of the region in the picture marked by region1.')


def test_special_tokens_in_the_order_of_their_ids():
    assert prompts.ADDED_TOKENS == ('[SEG]', '<p>', '</p>', '<vp>', '</vp>')
    assert (prompts.IMG_START, prompts.IMG_CONTEXT, prompts.IMG_END) == ('<img>', '<IMG_CONTEXT>', '</img>')
    assert (prompts.REGION_START, prompts.REGION_END) == ('<vp>', '</vp>')
    assert (prompts.SEG, prompts.IMAGE_PLACEHOLDER) == ('[SEG]', '<image>')


def test_segmentation_prompt_is_the_newline_form():
    assert prompts.segmentation_prompt(PHI3_CHAT, 'Please segment {class_name} in this image.', 2, 'a dog') == (
        '<|user|>\n<img><IMG_CONTEXT><IMG_CONTEXT></img>\nPlease segment a dog in this image.<|end|>\n<|assistant|>\n'
    )


def test_caption_prompt():
    assert prompts.caption_prompt(PHI3_CHAT, 2, 1) == (
        '<|user|>\n<img><IMG_CONTEXT><IMG_CONTEXT></img>\nThere are 1 part regions in the picture: '
        'region1<vp><IMG_CONTEXT></vp>.\nPlease generate a detailed description for the given image region.'
        '<|end|>\n<|assistant|>\n'
    )


def test_slot_without_space_before_it_is_refused():
    with pytest.raises(ValueError, match='must follow a space'):
        prompts.split_segmentation_prompt(PHI3_CHAT, 'Segment "{class_name}".', 4)


@pytest.mark.parametrize('caption, expected', [
    ('A Red Dog.', 'a red dog'),
    ('two.  A dog .', 'two. a dog'),
    ('wait...', 'wait..'),
    ('  spaced\n\tout  ', 'spaced out'),
    ('no stop', 'no stop'),
    ('really?', 'really?'),
])
def test_phrase(caption, expected):
    assert prompts.phrase(caption) == expected


def test_several_frames_and_regions():
    assert prompts.image_blocks(2, 1) == '<img><IMG_CONTEXT></img>\n<img><IMG_CONTEXT></img>'
    assert prompts.region_list([1, 2]) == (
        '\nThere are 2 part regions in the picture: region1<vp><IMG_CONTEXT></vp>, '
        'region2<vp><IMG_CONTEXT><IMG_CONTEXT></vp>.\n'
    )


def test_a_turn_of_a_dialogue():
    assert PHI3_CHAT.turn('Who?', 'Me.') == '<|user|>\nWho?<|end|>\n<|assistant|>\nMe.<|end|>\n'

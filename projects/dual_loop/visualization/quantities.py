"""What each logged figure means, in a sentence for readers of a page, and whether less or more of it is better."""

import re
from dataclasses import dataclass

LESS, MORE = 'less', 'more'


@dataclass(frozen=True)
class Quantity:
    """A figure.

    Attributes:
        meaning: a sentence; '' for a figure that nobody has explained.
        better: ``LESS``, ``MORE``, or None where neither is.
    """

    meaning: str = ''
    better: str | None = None


_IOU = 'IoU (shared pixels by pixels of either)'
_WORDS = dict(true="the data set's own words", generated="the model's own description",
              shuffled="the description of another object (near 'generated': the decoder ignores language)",
              empty="no words at all (near 'generated': it takes what is salient)")
_CAPTION = {
    'caption_len': Quantity('Mean length of the descriptions, in tokens.'),
    'distinct_1': Quantity('Different tokens of the descriptions by all their tokens; near 0 they repeat themselves.'),
    'distinct_2': Quantity('The same of pairs of neighbouring tokens.'),
    'hit_max_len': Quantity('Share of descriptions that were cut off at the longest length.', LESS),
}
#: Of a loop, behind its name.
_LOOP = _CAPTION | {
    'loss': Quantity('What the loop minimises: the weighted sum of its parts.', LESS),
    'mask': Quantity('Cross-entropy of the found mask against the true one, at sampled points, with its weight.', LESS),
    'dice': Quantity('One less the overlap (dice) of the found mask with the true one, with its weight.', LESS),
    'answer': Quantity('Cross-entropy of a token of the answer, which holds [SEG], in nats.', LESS),
    'caption': Quantity('Cross-entropy of a token of the description of the region, in nats.', LESS),
    'denoise': Quantity("Cross-entropy of the replaced tokens of the teacher's description, which the student is to "
                        'restore, in nats.', LESS),
    'distill': Quantity("Divergence of the student's mask from the one that the teacher finds; 0 where both agree.",
                        LESS),
    'score': Quantity('The score-function term that rewards sampled descriptions; its size says nothing.'),
    'reward': Quantity(f'{_IOU} of what the listener finds by the sampled descriptions.', MORE),
    'reward_baseline': Quantity("The same by the student's best tokens, which the reward is compared with.", MORE),
    'rows_kept': Quantity('Share of the described rows that count, since the teacher found them again.', MORE),
    'cycle_iou': Quantity(f'{_IOU} of what the teacher finds by its own descriptions.', MORE),
    'bridge_entropy': Quantity("How undecided the student is about a token of the description: the entropy of its "
                               'candidates, in nats; 0 is certain.'),
    'bridge_agreement': Quantity("Share of the sampled tokens that are the student's best ones."),
    'empty_mask': Quantity("Share of rows whose mask' has no pixel; its highest cell is described then.", LESS),
}
_OTHERS: dict[str, Quantity] = {
    'loss': Quantity('What is minimised.', LESS),
    'loss_mask': _LOOP['mask'], 'loss_dice': _LOOP['dice'], 'loss_answer': _LOOP['answer'],
    'loss_caption': _LOOP['caption'],
    'lr': Quantity('Learning rate.'), 'base_lr': Quantity('Learning rate before factors of parameter groups.'),
    'time': Quantity('Seconds of a step, everything included.', LESS),
    'data_time': Quantity('Seconds of a step that passed before the step itself began.', LESS),
    'memory': Quantity('Peak of the GPU memory that tensors took, in MiB.'),
    'teacher_distance': Quantity('How far the trained weights have moved away from the averages that the teacher has, '
                                 'by their own length.'),
    'grad_norm': Quantity('Length of the combined gradient before it is clipped.'),
    'grad_norm_clipped': Quantity('Length of the gradient with which the step was taken.'),
}
_HELD_OUT = {
    'giou': Quantity(f'Mean {_IOU} over the held-out sentences.', MORE),
    'ciou': Quantity('Shared pixels of all held-out sentences by the pixels of either.', MORE),
    'no_seg_rate': Quantity('Share of answers without [SEG], scored as empty masks.', LESS),
}
_CYCLE = _CAPTION | {
    'cider': Quantity('Words that descriptions share with those of people, rare words first (CIDEr).', MORE),
    'no_seg_rate': Quantity('Share of answers to own descriptions without [SEG], scored as empty masks.', LESS),
    'duplicates': Quantity('Share of objects whose description another one has too.', LESS),
    'empty': Quantity('Share of descriptions without a word.', LESS),
    'unknown_words': Quantity('Share of words that no sentence of the demo worlds has.', LESS),
}
_SECONDS = {
    'data': 'waiting for batches', 'teacher': "the teacher's descriptions",
    'wait': 'waiting for the other ranks to agree', 'surgery': 'combining the gradients of all ranks and loops',
    'optimizer': 'the update',
}
#: Of an evaluation, beside those of the held-out masks.
_RESULTS = {
    'giou': Quantity(f'Mean {_IOU} over the sentences.', MORE),
    'ciou': Quantity('Shared pixels of all sentences by the pixels of either.', MORE),
    'no_seg_rate': _HELD_OUT['no_seg_rate'], 'cider': _CYCLE['cider'],
    'meteor': Quantity('Words shared with those of people, word forms and synonyms too (METEOR).', MORE),
    'bleu4': Quantity('Runs of up to four words shared with those of people (BLEU-4).', MORE),
} | {name: figure for name, figure in _CYCLE.items() if name not in ('cider', 'no_seg_rate')}


def explain(name: str) -> Quantity:
    """A figure of the training log by its name, such as ``loop1/mask`` or ``cosine/lora``."""
    if match := re.fullmatch(r'(.+/answer) above its floor of [\d.]+', name):
        answer = explain(match[1])
        floor = 'The floor is what guessing among the wordings costs any model.'
        return Quantity(f'{answer.meaning} {floor}', answer.better)
    prefix, _, last = name.rpartition('/')
    if prefix == 'held_out':
        if last.startswith('ciou_'):
            return Quantity(f'The same of the sentences of the kind {last[5:]} alone.', MORE)
        return _HELD_OUT.get(last, Quantity())
    if prefix in ('cycle', 'cycle_teacher'):
        return _cycle(last, of_teacher=prefix == 'cycle_teacher')
    if prefix == 'seconds':
        return Quantity(f'Seconds of a step that went into {_SECONDS.get(last, f"the passes of {last}")}.', LESS)
    if surgery := _surgery(name):
        return surgery
    if not prefix:
        return _OTHERS.get(name, Quantity())
    return _LOOP.get(last, Quantity(f'A figure of its own of {prefix}.'))


def meaning(metric: str) -> str:
    """The sentence about a metric of an evaluation; '' if there is none."""
    if match := re.fullmatch(r'precision@([\d.]+)', metric):
        return f'Share of sentences with an IoU of at least {match[1]}.'
    if metric.startswith('accuracy_'):
        return _accuracy(metric.removeprefix('accuracy_')).meaning
    return _RESULTS.get(metric, Quantity()).meaning


def _cycle(name: str, of_teacher: bool) -> Quantity:
    if match := re.fullmatch(r'(true|generated|shuffled|empty)(_paired)?_iou', name):
        where = 'in the other frame' if match[2] else 'in the same picture'
        better = MORE if match[1] in ('true', 'generated') else None
        found = Quantity(f'{_IOU} of what is found {where} by {_WORDS[match[1]]}.', better)
    elif name.startswith('accuracy_'):
        found = _accuracy(name.removeprefix('accuracy_'))
    else:
        found = _CYCLE.get(name, Quantity())
    return Quantity(f'{found.meaning} With the averages.', found.better) if of_teacher and found.meaning else found


def _accuracy(name: str) -> Quantity:
    """Of demo data, whose truth is known."""
    if match := re.fullmatch(r'(new|old)_names', name):
        return Quantity(f'Share of the {match[1]} names of shapes, colours and textures that descriptions have right; '
                        'new are those that world A does not have.', MORE)
    match = re.fullmatch(r'(.+?)(?:_(new|old))?', name)
    right = 'all four attributes' if match[1] == 'all_four' else f'the {match[1]}'
    of = f', of objects with {match[2]} names' if match[2] else ''
    return Quantity(f'Share of descriptions that have {right} of the object right{of}.', MORE)


def _surgery(name: str) -> Quantity | None:
    """Figures of the gradients, of all parameters or behind a slash of a group of them."""
    match = re.fullmatch(r'(grad_norm|agreement|cosine|coefficient|w)(\d*)(?:/(.+))?', name)
    if match is None or (match[1] in ('grad_norm', 'agreement', 'w') and not match[2]):
        return None
    kind, numbers, group = match.groups()
    where = '' if group is None or kind == 'w' else f', in the parameters of {group}'
    first, second = (numbers[0], numbers[1]) if len(numbers) == 2 else ('1', '2')
    return Quantity({
        'grad_norm': f'Length of the gradient {numbers}{where}, in the order of the loops.',
        'agreement': f'Cosine of the gradient {numbers} with that of the step before{where}: about the share '
                     'of it that is not the noise of a batch.',
        'cosine': f'Cosine of the gradients {first} and {second}{where}: below 0 they pull apart.',
        'coefficient': f'The part of gradient {second} along gradient {first}{where}, in lengths of {first}: what '
                       'orthogonal takes off.',
        'w': f'Weight that surgery gave gradient {numbers}.',
    }[kind])

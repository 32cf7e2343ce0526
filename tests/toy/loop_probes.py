"""What tests of the loops watch and replace."""

import torch

from llava_sam2.portable.generation import Decoded

#: A batch for each loop.
SAMPLES = {
    'loop1': (dict(key=1), dict(key=2, pair=True), dict(key=3, caption='a cat on a very long green mat'), dict(key=8)),
    'loop2': (dict(key=1, caption='A dog. It is big.'), dict(key=2, caption='a cat'), dict(key=3, caption='it')),
}


def gradients(model, loss):
    """Gradient of every trainable, zeros where there is none."""
    parameters = model.trainables()
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(parameters.items(), found)}


def spy(monkeypatch, owner, name, note):
    """Let ``owner.name`` run as it is, and note what ``note(arguments, result)`` says of each call."""
    calls, original = [], getattr(owner, name)

    def run(*args, **kwargs):
        result = original(*args, **kwargs)
        calls.append(note(args, result))
        return result

    monkeypatch.setattr(owner, name, run)
    return calls


def speak(monkeypatch, model, *captions):
    """Let the teacher say given texts (or token ids), whatever it sees."""
    ids = [model.base.vocabulary.encode(c) if isinstance(c, str) else c for c in captions]
    monkeypatch.setattr(model.teacher, 'describe', lambda *args: [Decoded(list(one), True) for one in ids])


def ragged(monkeypatch, model):
    """Captions of 1 to 6 tokens: the teacher's own, cut by the size of the region."""
    describe = model.teacher.describe

    def run(images, image_of_row, regions, *options):
        decoded = describe(images, image_of_row, regions, *options)
        return [Decoded(one.ids[: 1 + int(region.sum()) % 6], True) for one, region in zip(decoded, regions)]

    monkeypatch.setattr(model.teacher, 'describe', run)


def read_rows(monkeypatch, model):
    """The batches that the student reads, pass by pass."""
    return spy(monkeypatch, model.base, 'read_rows', lambda args, result: result[0])

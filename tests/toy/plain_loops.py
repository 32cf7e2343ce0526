"""The losses of the training model, row by row and in plain torch: what batches must add up to.

Of the model under test only the modules with weights and the tokenizer are used. Sequences have no padding, images no
company, and every draw is made anew from its key.
"""

import hashlib
import math

import torch

from llava_sam2.portable import prompts

#: Template -> what stands before a question, between it and the answer, and after the answer.
MARKUP = {
    'phi3_chat': ('<|user|>\n', '<|end|>\n<|assistant|>\n', '<|end|>'),
    'qwen_chat': ('<|im_start|>user\n', '<|im_end|>\n<|im_start|>assistant\n', '<|im_end|>'),
}


def key_of(*parts) -> int:
    text = '\x1f'.join(f'{type(part).__name__}:{part}' for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'little') >> 1


def philox(counter, key) -> list[int]:
    """Philox4x32-10 in Python's integers, as Salmon et al. (2011) write it."""
    (a, b, c, d), (k0, k1) = counter, key
    for _ in range(10):
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = second >> 32 ^ b ^ k0, second % 2**32, first >> 32 ^ d ^ k1, first % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [a, b, c, d]


def words(key: int, count: int, place: int = 0) -> list[int]:
    blocks = (philox((block, place, 0, 0), (key % 2**32, key >> 32)) for block in range(-(-count // 4)))
    return [word for block in blocks for word in block][:count]


def uniform(key: int, count: int, place: int = 0) -> torch.Tensor:
    return torch.tensor([(word + 0.5) / 2**32 for word in words(key, count, place)], dtype=torch.float64)

LONG_QUESTION = 'Please generate a detailed description for the given image region.'
SHORT_QUESTION = 'Please give me a short description of the region in the picture marked by region1.'


class PlainRow:
    """One row of a collated batch.

    Args:
        base: the model under test.
        data: the batch.
        row: index of the row.
        step, seed: of the draws.
    """

    def __init__(self, base, data, row: int, step: int, seed: int):
        self.network, self.vocabulary, self.tokenizer = base.network, base.vocabulary, base.vocabulary.tokenizer
        self.before, self.between, self.after = MARKUP[base.config.template]
        self.data, self.row, self.step, self.seed = data, row, step, seed
        self.caption = data['captions'][row]
        self.short = False  # asked for a phrase and not for a description
        self.image1, self.image2 = int(data['image1'][row]), int(data['image2'][row])
        self.region = data['prompt_masks'][row].flatten()
        usable = bool(data['masks2'][row].any()) and bool(data['prompt_masks'][row].any())
        self.weight = float(data['row_weights'][row]) if usable else 0.0

    def key(self, purpose: str) -> int:
        return key_of(self.seed, self.step, purpose, self.data['sample_ids'][self.row])

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    # -- the language model ---------------------------------------------------------------------------------------

    def states(self, pieces: list, image: int, region: torch.Tensor | None = None) -> tuple[list, torch.Tensor]:
        """Read token ids and (D,) embeddings; the image tokens among the ids take the image's features in turn."""
        features = self.network.mlp1(self.network.encode_vision(self.data['pixel_values'][image : image + 1]))[0]
        visual = list(features) + ([] if region is None else [features[cell] for cell in range(16) if region[cell]])
        matrix = self.network.language_model.get_input_embeddings().weight
        image_id = self.tokenizer.convert_tokens_to_ids('<IMG_CONTEXT>')
        embeds = []
        for piece in pieces:
            if not isinstance(piece, int):
                embeds.append(piece)
            else:
                embeds.append(visual.pop(0) if piece == image_id else matrix[piece])
        assert not visual
        return self.network.language_model.model(inputs_embeds=torch.stack(embeds)[None]).last_hidden_state[0]

    def cross_entropy(self, states: torch.Tensor, pieces: list, places: list[int]) -> torch.Tensor:
        """Mean of the tokens at the given places, each predicted from the state before it."""
        total = 0.0
        for place in places:
            logits = self.network.language_model.lm_head(states[place - 1])
            total = total + logits.logsumexp(0) - logits[pieces[place]]
        return total / len(places)

    # -- segmentation ---------------------------------------------------------------------------------------------

    def templates(self) -> tuple[str, str]:
        drawn = self.key('template')
        return prompts.SEGMENTATION_QUESTIONS[drawn % 16], prompts.SEGMENTATION_ANSWERS[drawn // 16 % 5]

    def segmentation(self, slot: list) -> dict:
        """Losses of a row whose slot holds the given pieces, with the mask's logits."""
        question, answer = self.templates()
        before, after = question.split(' {class_name}')
        prompt = self.encode(f'{self.before}<img>{"<IMG_CONTEXT>" * 16}</img>\n{before}')
        prompt += slot + self.encode(f'{after}{self.between}')
        pieces = prompt + self.encode(answer + self.after)
        states = self.states(pieces, self.image2)
        seg_id = self.tokenizer.convert_tokens_to_ids('[SEG]')
        [seg] = [place for place, piece in enumerate(pieces) if isinstance(piece, int) and piece == seg_id]
        maps = self.network.encode_grounding(self.data['g_pixel_values'][self.image2 : self.image2 + 1])
        logits = self.network.decode_masks(maps, self.network.text_hidden_fcs(states[seg])[None, None])[0, 0]
        bce, dice = self.mask_losses(logits)
        answer = self.cross_entropy(states, pieces, list(range(len(prompt), len(pieces))))
        return dict(mask=bce, dice=dice, answer=answer, logits=logits)

    def mask_losses(self, logits: torch.Tensor, num_points: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
        """2.0 BCE and 0.5 dice on 64 points: 48 of 192 candidates, where the logit is nearest to zero, and 16 more."""
        target = self.data['masks2'][self.row].float().view(32, 4, 32, 4).mean((1, 3))
        drawn = uniform(self.key('points'), 2 * (3 * num_points + num_points // 4)).float().view(-1, 2)
        candidates = sorted(drawn[: 3 * num_points], key=lambda point: float(bilinear(logits.detach(), point).abs()))
        points = candidates[: num_points * 3 // 4] + list(drawn[3 * num_points :])
        x = torch.stack([bilinear(logits, point) for point in points])
        t = torch.stack([bilinear(target, point) for point in points])
        p = 1 / (1 + (-x).exp())
        bce = -(t * p.log() + (1 - t) * (1 - p).log()).sum() / num_points
        return 2.0 * bce, 0.5 * (1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))

    def text_slot(self) -> list[int]:
        return self.encode(' ' + self.caption.lower().removesuffix('.'))

    # -- captions -------------------------------------------------------------------------------------------------

    def caption_prompt(self, region: torch.Tensor) -> list[int]:
        tokens = '<IMG_CONTEXT>' * int(region.sum())
        return self.encode(
            f'{self.before}<img>{"<IMG_CONTEXT>" * 16}</img>\nThere are 1 part regions in the picture: '
            f'region1<vp>{tokens}</vp>.\n{SHORT_QUESTION if self.short else LONG_QUESTION}{self.between}'
        )

    def description(self, image: int, region: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the caption with its terminator."""
        prompt = self.caption_prompt(region)
        pieces = prompt + self.encode(self.caption + self.after)
        return self.cross_entropy(self.states(pieces, image, region), pieces, list(range(len(prompt), len(pieces))))

    def student(self, taught: list[int], topk: int = 16, tau: float = 0.7, slot: str = 'student', factor: float = 1,
                max_norm: float = math.inf) -> tuple[list, list[int], torch.Tensor]:
        """Soft caption, its ids and the denoising loss, from what the teacher says.

        The gradient of the soft caption is taken ``factor`` times and cut to ``max_norm`` times the row's weight.
        """
        if len(taught) > 1 and self.tokenizer.decode(taught[-1:]) == '.':
            taught = taught[:-1]
        drawn, ordinary = words(self.key('corruption'), 2 * len(taught)), self.vocabulary.ordinary_ids
        count = max(1, round(0.25 * len(taught)))
        replaced = sorted(sorted(range(len(taught)), key=lambda place: drawn[2 * place])[:count])
        read = list(taught)
        for place in replaced:
            read[place] = int(ordinary[drawn[2 * place + 1] * len(ordinary) // 2**32])
        prompt = self.caption_prompt(self.region)
        states = self.states(prompt + read, self.image1, self.region)
        denoise = self.cross_entropy(states, prompt + taught, [len(prompt) + place for place in replaced])
        matrix = self.network.language_model.get_input_embeddings().weight
        mixtures, sampled = [], []
        for place in range(len(taught)):
            logits = self.network.language_model.lm_head(states[len(prompt) + place - 1])
            allowed = logits.masked_fill(self.vocabulary.not_in_caption, -math.inf)
            ids = allowed.argsort(descending=True)[:topk].tolist()
            if slot == 'teacher':
                given = taught[place]
                ids = [given, *[index for index in ids if index != given][: topk - 1]]
            noisy = torch.stack([logits[index] for index in ids])
            if slot == 'student':
                noisy = noisy - (-(1 - uniform(self.key('gumbel'), topk, place)).log()).log().float()
            if place == 0:
                ids = [int(self.vocabulary.with_leading_space[index]) for index in ids]
            mixtures.append((noisy / tau).softmax(0) @ matrix[ids])
            sampled.append(ids[0] if slot == 'teacher' else ids[int(noisy.argmax())])
        mixture = torch.stack(mixtures)
        if mixture.requires_grad:
            mixture.register_hook(lambda grad: grad * min(
                factor, max_norm * self.weight / max(float(grad.norm()), 1e-30)))
        return list(matrix[sampled] + mixture - mixture.detach()), sampled, denoise


def bilinear(grid: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """Value at (x, y) in 0..1, between the centres of the pixels; nothing lies outside."""
    height, width = grid.shape
    x, y = float(point[0] * width) - 0.5, float(point[1] * height) - 0.5
    value = grid.new_zeros(())
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                value = value + (1 - abs(y - row)) * (1 - abs(x - column)) * grid[row, column]
    return value


def touched(logits: torch.Tensor) -> torch.Tensor:
    """Cells (16,) of the 4 x 4 grid that a mask touches, or the cell of its highest logit."""
    best = int(logits.argmax())
    return torch.tensor([
        bool((block > 0).any()) or (best // 32 // 8, best % 32 // 8) == (row, column)
        for row in range(4) for column in range(4)
        for block in [logits[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]]
    ])


def loop1(model, data, step: int, seed: int, taught: dict[int, list[int]], short: float = 0.0, **options
          ) -> tuple[dict, dict[int, str], list]:
    """Parts, the captions in the slot as text, and the logits, of a batch whose rows ``taught`` the teacher describes.

    Options are those of :meth:`PlainRow.student`.
    """
    parts, texts, logits = dict(mask=0.0, dice=0.0, answer=0.0, denoise=0.0), {}, []
    for index in range(len(data['captions'])):
        row = PlainRow(model.base, data, index, step, seed)
        row.short = row.key('short caption') < short * 2**63
        if row.caption is None:
            slot, sampled, denoise = row.student(taught[index], **options)
            texts[index] = row.tokenizer.decode(sampled).strip()
            parts['denoise'] += row.weight * denoise
        else:
            slot = row.text_slot()
        found = row.segmentation(slot)
        logits.append(found.pop('logits').detach())
        for name, value in found.items():
            parts[name] += row.weight * value
    return parts, texts, logits


def loop2(model, data, step: int, seed: int, short: bool = False) -> dict:
    parts = dict(mask=0.0, answer=0.0, caption=0.0)
    for index in range(len(data['captions'])):
        row = PlainRow(model.base, data, index, step, seed)
        row.short = short and not data['describes'][index]
        found = row.segmentation(row.text_slot())
        parts['mask'] += row.weight * (found['mask'] + found['dice'])
        parts['answer'] += row.weight * found['answer']
        parts['caption'] += row.weight * row.description(row.image2, touched(found['logits'].detach()))
    return parts


def supervised(base, data, step: int, seed: int, short: bool = False) -> dict:
    parts = dict(loss_mask=0.0, loss_dice=0.0, loss_answer=0.0, loss_caption=0.0)
    for index, describes in enumerate(data['describes']):
        row = PlainRow(base, data, index, step, seed)
        found = row.segmentation(row.text_slot())
        for name in ('mask', 'dice', 'answer'):
            parts[f'loss_{name}'] += row.weight * found[name]
        if describes or short:
            row.short = not describes
            parts['loss_caption'] += row.weight * row.description(row.image1, row.region)
    return parts

"""Answers of a given length by a model that would say something else, and data as an evaluation has them."""

import torch

from dual_loop.benchmark.evaluation_speed import SENTENCES, SIZE, SyntheticSentences, answering_at_length
from dual_loop.evaluation.referring import ReferringBatches
from llava_sam2.portable.answers import answer_rows
from llava_sam2.portable.rows import chat_row
from llava_sam2.portable.static_decoding import KeptDecoder


def test_every_answer_has_its_length_and_is_a_mask(build_base, vocabulary):
    network = build_base(lora=None).eval().network
    rows, features = [chat_row(vocabulary, text) for text in ('Who?', 'And where is it?')], torch.zeros(0, 16, 32)
    own = answer_rows(network, vocabulary, rows, features, 5)
    decoder = KeptDecoder().of(network, vocabulary)
    steps = []
    with answering_at_length(network, vocabulary.seg_id):
        for each in (None, decoder):
            steps.append(0)
            said = answer_rows(network, vocabulary, rows, features, 5, decoder=each,
                               poll=lambda: steps.append(steps.pop() + 1))
            assert [one.ids for one in said] == [[vocabulary.seg_id] * 5] * 2
    assert steps == [6, 6]
    assert [one.ids for one in answer_rows(network, vocabulary, rows, features, 5)] == [one.ids for one in own]


def test_sentences_share_pictures_in_order(tmp_path):
    dataset = SyntheticSentences(tmp_path, 40)
    batches = ReferringBatches(dataset, lambda image: image, 16)
    assert len(batches) == 3 and len(batches.rows) == 40
    counts = dict.fromkeys(dataset.index['image'].tolist(), 0)
    for number in range(3):
        batch = batches[number]
        for image, texts, targets, pixels in zip(batch.images, batch.texts, batch.targets, batch.pictures):
            counts[int(image.removesuffix('.jpg'))] += len(texts)
            assert pixels.shape == (3, *SIZE) and targets.shape == (len(texts), *SIZE)
            assert all(texts) and targets.flatten(1).any(1).all()
    assert sum(counts.values()) == 40 and sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f'{number}.jpg' for number in counts)
    assert all(SENTENCES[0] <= each < SENTENCES[1] for each in list(counts.values())[:-1])

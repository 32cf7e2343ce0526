"""Loop 2 on tiny synthetic batches."""


import pytest
import torch
from loop_probes import SAMPLES, gradients, read_rows, spy

from dual_loop.models.caption_loop import CaptionLoop, predicted_regions
from llava_sam2.portable import prompts
from llava_sam2.portable.regions import region_grid
from llava_sam2.portable.sequences import IGNORE


@pytest.mark.parametrize('size', [32, 30])
def test_predicted_regions_touch_the_mask(size):
    logits = torch.randn(5, size, size, generator=torch.Generator().manual_seed(0)) - 3
    logits[:, 3, 3] = 1.0
    assert torch.equal(predicted_regions(logits, 4), region_grid(logits > 0, 4))


def test_empty_prediction_turns_on_the_cell_of_its_highest_logit():
    logits = torch.full((2, 32, 32), -5.0)
    logits[0, 9, 31] = -1.0
    logits[1, 0, 8] = -2.0
    regions = predicted_regions(logits, 4)
    assert regions.nonzero().tolist() == [[0, 1, 3], [1, 0, 1]]


def test_empty_mask_never_skips_the_description(build_loops, make_batch, monkeypatch):
    model = build_loops()
    segment = model.base.segment
    monkeypatch.setattr(model.base, 'segment', lambda *args: segment(*args) - 1e4)
    passes = read_rows(monkeypatch, model)
    out = model.loops['loop2'].forward(model, make_batch(*SAMPLES['loop2']), 0)
    assert out['empty_mask'] == 1.0 and out['caption'] > 0
    assert [int(row.region.sum()) for row in passes[1].rows] == [1, 1, 1]


def test_loop2_rows_and_labels(build_loops, make_batch, monkeypatch):
    """Step A supervises the answer, step B the caption with its terminator, and never a pad."""
    model = build_loops(max_caption_len=30)
    vocabulary = model.base.vocabulary
    masks = spy(monkeypatch, model.base, 'segment', lambda args, result: result)
    passes = read_rows(monkeypatch, model)
    model.loops['loop2'].forward(model, make_batch(*SAMPLES['loop2']), 0)
    step_a, step_b = passes
    regions = region_grid(masks[0] > 0, 4)
    for index, sample in enumerate(SAMPLES['loop2']):
        text = vocabulary.decode(step_a.rows[index].input_ids)
        assert f' {prompts.phrase(sample["caption"])}' in text
        supervised = vocabulary.decode([label for label in step_a.labels[index].tolist() if label != IGNORE])
        assert supervised in {f'{answer}<|end|>' for answer in prompts.SEGMENTATION_ANSWERS}
        described = step_b.rows[index]
        labels = [label for label in step_b.labels[index].tolist() if label != IGNORE]
        assert labels == vocabulary.encode(sample['caption'] + '<|end|>')
        assert described.input_ids[-len(labels):] == labels
        assert torch.equal(described.region, regions[index].flatten())
    for batch in passes:
        assert len({len(row.input_ids) for row in batch.rows}) > 1
        assert (batch.labels[~batch.attention_mask.bool()] == IGNORE).all()


def test_loop2_refuses_a_row_without_caption(build_loops, make_batch):
    with pytest.raises(ValueError, match='no caption.*train_dataloader.*loop2_dataloader'):
        model = build_loops()
        model.loops['loop2'].forward(model, make_batch(dict(key=3, caption=None)), 0)


def test_captions_of_no_token_are_refused():
    with pytest.raises(ValueError, match='max_caption_len=0 is no number of tokens'):
        CaptionLoop(max_caption_len=0)


def test_loop2_loss_and_what_it_trains(build_loops, make_batch):
    batch = make_batch(*SAMPLES['loop2'])
    model = build_loops(answer_weight=0.3)
    out = model.loops['loop2'].forward(model, batch, 0)
    expected = out['caption'] + 0.3 * out['answer']
    assert float(out['loss'].detach()) == pytest.approx(float(expected), rel=1e-6) and 'mask' not in out
    found = gradients(model, out['loss'])
    for name, gradient in found.items():
        trained = '.lora_' in name or '.mlp1.' in name
        assert trained or gradient.eq(0).all(), name  # mask' enters without gradient
    assert found['base.network.mlp1.1.weight'].abs().sum() > 0
    with_mask = build_loops(answer_weight=0.3, mask_weight=0.5)
    out = with_mask.loops['loop2'].forward(with_mask, batch, 0)
    assert float(out['loss'].detach()) == pytest.approx(float(expected + 0.5 * out["mask"]), rel=1e-5)
    found = gradients(with_mask, out['loss'])
    assert found['base.network.text_hidden_fcs.0.weight'].abs().sum() > 0


def test_both_steps_of_loop2_train_the_projector(build_loops, make_batch):
    batch = make_batch(*SAMPLES['loop2'])
    both, caption = (
        gradients(model, model.loops['loop2'].forward(model, batch, 0)['loss'])['base.network.mlp1.1.weight']
        for model in (build_loops(), build_loops(answer_weight=0.0))
    )
    assert caption.abs().sum() > 0 and (both - caption).abs().sum() > 0

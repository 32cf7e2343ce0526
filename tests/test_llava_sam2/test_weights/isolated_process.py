"""Loads exported folders in a process that has site-packages and nothing of this project.

    python -I -S isolated_process.py REQUEST ANSWER PATHS

REQUEST is a file of torch.save with a list of cases, dicts with ``folder``, ``options`` of from_pretrained
and what to ask. ANSWER gets a dict for each case. PATHS is JSON, added to sys.path. test_export.py runs it.
"""

import importlib.util
import json
import sys


def answer(case: dict) -> dict:
    import torch
    import transformers

    try:
        loader = getattr(transformers, case.get('loader', 'AutoModel'))
        model = loader.from_pretrained(case['folder'], trust_remote_code=True, **case.get('options', {}))
    except Exception as error:
        return dict(error=f'{type(error).__name__}: {error}')
    tokenizer = transformers.AutoTokenizer.from_pretrained(case['folder'])
    package = type(model).__module__.rpartition('.')[0]
    modules = {name.removeprefix(package + '.'): module for name, module in sys.modules.items() if package in name}
    result = dict(
        package=package,
        mark=getattr(modules['regions'], 'MARK', None),
        dtypes={name: tensor.dtype for name, tensor in (*model.named_parameters(), *model.named_buffers())},
        carried=model.carried,
        answers=[model.predict_forward(tokenizer=tokenizer, **question) for question in case.get('questions', ())],
        static=model.decoder._decoder is not None,
    )
    model.decoder = None
    result['plain'] = [model.predict_forward(tokenizer=tokenizer, **question) for question in case.get('questions', ())]
    if 'row' in case:
        vocabulary = modules['vocabulary'].Vocabulary(tokenizer, model.config.llm_config.vocab_size,
                                                      model.config.chat_template)
        row = modules['rows'].segmentation_row(vocabulary, model.config.num_image_tokens, 0, *case['row'])
        batch = modules['sequences'].pad_rows(
            [row], vocabulary.pad_id, vocabulary.image_id, model.config.num_image_tokens
        )
        with torch.no_grad():
            states = model.hidden_states(batch, model.mlp1(model.encode_vision(case['pixel_values'])))
            seg_embeds = model.text_hidden_fcs(states[batch.input_ids == vocabulary.seg_id])[None]
            maps = model.encode_grounding(case['g_pixel_values'])
            result |= dict(logits=model.logits(states), masks=model.decode_masks(maps, seg_embeds))
            prompt = modules['rows'].caption_row(
                vocabulary, model.config.num_image_tokens, 0, case['region'], [])
            padded = modules['sequences'].pad_rows(
                [prompt], vocabulary.pad_id, vocabulary.image_id, model.config.num_image_tokens, side='left'
            )
            features = model.mlp1(model.encode_vision(case['pixel_values']))
            result['ids'] = modules['generation'].greedy_decode(model, padded, features, vocabulary, 32)[0].ids
    if 'save' in case:
        model.save_pretrained(case['save'])
    return result


def main() -> None:
    request, target, paths = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    sys.path.extend(paths)
    for name in ('llava_sam2', 'dual_loop'):
        assert importlib.util.find_spec(name) is None, f'{name} can be imported here'
    import torch

    cases = torch.load(request, weights_only=False)
    answers = [answer(case) for case in cases]
    for name in ('peft', 'mmengine', 'xtuner', 'deepspeed'):
        assert name not in sys.modules, f'the exported files import {name}'
    torch.save(answers, target)


if __name__ == '__main__':
    main()

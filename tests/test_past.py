"""What version 0.1.0 wrote (tests/past) still evaluates, exports, and resumes or is refused in one sentence."""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dual_loop.checkpoints.conversion import convert
from dual_loop.evaluation.loading import load_model
from llava_sam2.portable.chat import Sa2VAChatModel
from llava_sam2.tokenizer import load_tokenizer

PAST = Path(__file__).parent / 'past'
#: Config as written and as dumped -> the checkpoint of its run.
RUNS = {'config.py': 'iter_2.pth', 'dumped.py': 'iter_2.pth', 'dumped_zero2.py': 'zero2/iter_2.pth'}
QUESTION = '<image>Please segment the red circle in this image.'
#: Settings and tokenizer of the exported folder.
WRITTEN = sorted(path.name for path in (PAST / 'exported').iterdir() if path.suffix == '.json')


@pytest.mark.parametrize('config', RUNS)
def test_checkpoints_export(config, tmp_path):
    convert(PAST / config, PAST / RUNS[config], tmp_path / 'out')
    tensors, before = (load_file(folder / 'model.safetensors') for folder in (tmp_path / 'out', PAST / 'exported'))
    start = load_file(PAST / 'base/model.safetensors')
    assert tensors.keys() == before.keys()
    # DeepSpeed's run was in bf16, so it ends near the other one.
    bound = 1e-6 if RUNS[config] == 'iter_2.pth' else 1e-2
    for name, value in tensors.items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=bound, msg=name)
    learned = {name for name in tensors if not torch.equal(tensors[name], start[name])}
    assert learned == {name for name in before if not torch.equal(before[name], start[name])} and len(learned) > 50
    for name in WRITTEN:
        assert (tmp_path / 'out' / name).read_bytes() == (PAST / 'exported' / name).read_bytes(), name


@pytest.mark.parametrize('config', [None, *RUNS])
def test_folders_and_checkpoints_evaluate(config, checkout, tmp_path):
    """cIoU as version 0.1.0 measured it, by the ``forced`` protocol on the one held-out picture."""
    model = [PAST / 'exported'] if config is None else [PAST / config, PAST / RUNS[config]]
    spec = importlib.util.spec_from_file_location('eval_refcoco', checkout / 'tools/eval_refcoco.py')
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    arguments = ['refcoco', *model, '--data-root', PAST / 'data/ref_seg', '--protocol', 'forced', '--examples', 0,
                 '--num-workers', 0, '--out', tmp_path / 'results.json']
    assert command.main(list(map(str, arguments))) == 0
    results = json.loads((tmp_path / 'results.json').read_text())
    assert results['counts']['sentences'] == 5
    bound = 1e-4 if config != 'dumped_zero2.py' else 1e-2
    assert results['metrics']['ciou'] == pytest.approx(0.05465390684947373, abs=bound)


def test_the_exported_folder_is_what_its_checkpoint_gives():
    folder, checkpoint = load_model(PAST / 'exported'), load_model(PAST / 'config.py', PAST / 'iter_2.pth')
    state = folder.network.state_dict()
    for name, value in checkpoint.network.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=1e-6, msg=name)


def test_the_exported_folder_answers_with_its_own_files(tmp_path):
    """In a process that has nothing of this project."""
    picture = next((PAST / 'data').rglob('*000001.jpg'))
    program = f"""
import numpy as np
from PIL import Image
from transformers import AutoModel, AutoTokenizer
folder = {str(PAST / 'exported')!r}
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
picture = Image.open({str(picture)!r}).convert('RGB')
said = model.predict_forward(image=picture, text={QUESTION!r},
                             tokenizer=AutoTokenizer.from_pretrained(folder), max_new_tokens=8)
print(repr(said['prediction']), len(said['prediction_masks']))
"""
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=tmp_path,
                          env=environment | dict(HF_MODULES_CACHE=str(tmp_path / 'modules'), OMP_NUM_THREADS='1'))
    assert done.returncode == 0, done.stderr[-2000:]
    with Image.open(picture) as image:
        today = Sa2VAChatModel.from_pretrained(PAST / 'exported').predict_forward(
            image=image.convert('RGB'), text=QUESTION, tokenizer=load_tokenizer(PAST / 'exported'), max_new_tokens=8)
    assert done.stdout.strip() == f"{today['prediction']!r} {len(today['prediction_masks'])}" and today['prediction']


@pytest.mark.parametrize(('config', 'options'), [
    ('config.py', []), ('dumped.py', []), ('dumped_zero2.py', ['--deepspeed', 'zero2'])])
def test_runs_resume_or_are_refused_in_one_sentence(config, options, checkout, tmp_path):
    done = subprocess.run(
        [sys.executable, checkout / 'tools/train.py', PAST / config, '--work-dir', tmp_path / 'work', '--resume',
         PAST / RUNS[config], *options],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | dict(OMP_NUM_THREADS='1'))
    log = done.stdout + done.stderr
    if done.returncode:
        last = log.strip().splitlines()[-1]
        assert re.search(r'iter_2.pth (cannot be resumed exactly|was written by another version)', last), log[-3000:]
        return
    assert (tmp_path / 'work/iter_4.pth').exists() and 'step 4/4 | loop 1: mask' in log
    # What it learned in the next two steps is what version 0.1.0 learned in them.
    [line] = [line for line in log.splitlines() if 'step 4/4 | held_out' in line]
    assert float(re.search(r' ciou (\S+)', line)[1]) == pytest.approx(0.071, abs=0.002)


def test_nothing_of_it_was_changed():
    """These files are evidence; a new format gets a folder of its own."""
    digest = hashlib.sha256()
    for path in sorted(path for path in PAST.rglob('*') if path.is_file() and '__pycache__' not in path.parts):
        # The fingerprint of the base is noted beside it when it is first asked for.
        if path != PAST / 'README.md' and not path.name.startswith('.'):
            digest.update(path.relative_to(PAST).as_posix().encode() + path.read_bytes())
    assert digest.hexdigest() == (
        'd11e98db405c0edae756ab4922516952d9f7a99905ffb496bc29e35483406c05')

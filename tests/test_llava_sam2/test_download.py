"""Weights that are not there: the key, the place and the command that fetches them."""

import pytest

from llava_sam2.download import download_command, require_weights
from llava_sam2.paths import CHECKOUT


@pytest.mark.parametrize(('path', 'command'), [
    ('pretrained/Sa2VA-4B', 'hf download ByteDance/Sa2VA-4B --local-dir pretrained/Sa2VA-4B'),
    ('/x/InternVL2_5-4B', 'hf download OpenGVLab/InternVL2_5-4B --local-dir /x/InternVL2_5-4B'),
    ('w/sam2_hiera_large.pt', 'hf download facebook/sam2-hiera-large sam2_hiera_large.pt --local-dir w'),
    ('mine', 'hf download OWNER/NAME --local-dir mine')])
def test_commands(path, command):
    assert download_command(path) == command


def test_keys_of_the_config():
    tiny = dict(pretrained='assets/tiny', tokenizer='assets/tiny')
    require_weights(dict(base=tiny))
    require_weights(tiny)
    require_weights(dict(random_weights=True, tokenizer=dict(type='stand_in_tokenizer', folder='nowhere')))
    for model, key in ((dict(base=dict(tiny, pretrained='nowhere')), 'model.base.pretrained'),
                       (dict(tiny, tokenizer='nowhere'), 'model.tokenizer'),
                       (dict(base=dict(tiny, pretrained=dict(mllm='assets/tiny', sam2='nowhere'))),
                        'model.base.pretrained.sam2')):
        with pytest.raises(FileNotFoundError) as caught:
            require_weights(model)
        said = str(caught.value)
        assert said.startswith(f"{key} is 'nowhere', and there is no {CHECKOUT / 'nowhere'}") and 'hf download' in said

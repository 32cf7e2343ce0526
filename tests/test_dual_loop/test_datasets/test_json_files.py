import json

import pytest

from dual_loop.datasets import load_json
from dual_loop.datasets.json_files import RepeatedKeys, parse_json


def test_a_key_twice_is_known_at_its_object_only():
    content = parse_json(b'{"a": {"x": 1, "y": 2, "x": 3}, "b": [{"x": 1}], "c": {}}')
    assert content == json.loads('{"a": {"x": 3, "y": 2}, "b": [{"x": 1}], "c": {}}')
    assert isinstance(content['a'], RepeatedKeys) and content['a'].repeated == {'x'}
    assert not any(isinstance(each, RepeatedKeys) for each in (content, content['b'][0], content['c']))


@pytest.mark.parametrize('text', ['', '{', '[' * 100_000, '[' * 100_000 + ']' * 100_000, '{"a":' * 100_000, '\0'])
def test_files_that_cannot_be_read_are_named(tmp_path, text):
    (tmp_path / 'a.json').write_text(text)
    with pytest.raises(ValueError, match=r'a\.json is not a JSON file.*Download it again'):
        load_json(tmp_path / 'a.json')


def test_bytes_that_are_no_text_and_a_mark_at_the_start(tmp_path):
    (tmp_path / 'a.json').write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match=r'a\.json is not a JSON file'):
        load_json(tmp_path / 'a.json')
    (tmp_path / 'a.json').write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert load_json(tmp_path / 'a.json') == dict(a=1)


def test_a_key_twice_is_an_error_unless_it_is_asked_for(tmp_path):
    (tmp_path / 'a.json').write_text('{"list": [{"one": 1, "one": 2}]}')
    with pytest.raises(ValueError, match=r"a\.json has the key 'one' twice"):
        load_json(tmp_path / 'a.json')
    assert load_json(tmp_path / 'a.json', keep_repeats=True) == dict(list=[dict(one=2)])

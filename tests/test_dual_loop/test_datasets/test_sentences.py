"""Files of captions: what they may hold, and which place an error names."""

import re

import pytest

from dual_loop.datasets.sentences import captions_file, read_sentences


@pytest.fixture
def write(tmp_path):
    def file(name, text):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return file


def told(file):
    return [(each.name, each.text, each.line) for each in read_sentences(file)]


def test_json(write):
    file = write('captions.json', '{\n "Tür 1": "Eine  Tür.",\n\n "b": ["One.",\n "Two."], "c:d \\"e\\"": "{x}"}\n')
    assert told(file) == [('Tür 1', 'Eine Tür.', 0), ('b', 'One.', 0), ('b', 'Two.', 0), ('c:d "e"', '{x}', 0)]


@pytest.mark.parametrize('text', [
    'name,caption\nTür 1,"Eine Tür, blau."\n\nb,One.\nb,Two.\n',
    'caption;x;name\nEine Tür, blau.;7;Tür 1\n\nOne.;;b\nTwo.;;b\n',
    '\ufeffName\tCaption\r\nTür 1\tEine Tür, blau.\r\n\r\nb\tOne.\r\nb\tTwo.'])
def test_csv(write, text):
    assert told(write('captions.csv', text)) == [('Tür 1', 'Eine Tür, blau.', 2), ('b', 'One.', 4), ('b', 'Two.', 5)]


def test_a_sentence_over_two_lines_moves_those_behind_it(write):
    file = write('captions.csv', 'name,caption\na,"Two\nlines."\nb,\n')
    assert told(file) == [('a', 'Two lines.', 2), ('b', '', 4)]


@pytest.mark.parametrize('name, text, line, problem', [
    ('captions.json', '{\n"a": " "}', 0, 'the caption is empty: .* or remove the name'),
    ('captions.json', '{"a":\n "A.",\n"b": 7}', 0, 'no text but int'),
    ('captions.json', '{"a":\n ["A.", null]}', 0, 'no text but NoneType'),
    ('captions.json', '{\n\n"a": []}', 0, 'list of sentences is empty'),
    ('captions.json', '{"a": "A.",\n"b": "{}",\n"a": "B."}', 0, 'twice: give one list'),
    ('captions.json', '{"": "A."}', 0, 'there is no name'),
    ('captions.csv', 'name,caption\na,A, and B.\n', 2, "3 cells, the first line 2: put a sentence with ',' into"),
    ('captions.csv', 'name,caption\na\n', 2, '1 cells'),
    ('captions.csv', 'name,caption\n\na, \n', 3, 'the caption is empty: .* or remove the line'),
    ('captions.csv', 'name,caption\n,A.\n', 2, 'there is no name'),
])
def test_one_bad_place_is_told_with_its_place_and_costs_only_itself(write, name, text, line, problem):
    bad = [each for each in read_sentences(write(name, text)) if each.problem]
    assert {each.line for each in bad} == {line} and all(re.search(problem, each.problem) for each in bad)
    place = f'line {line}' if line else repr(bad[0].name)
    assert bad[0].located('wrong') == f'{place}: wrong'
    if not line:
        assert bad[0].located(f'{place} is wrong') == f'{place} is wrong', 'a name is not said twice'


@pytest.mark.parametrize('name, text, error', [
    ('captions.json', '{"a": "A.",\n "b" "B."}', r"captions\.json, line 2, column 6: Expecting ':'"),
    ('captions.json', '["a"]', r'captions\.json: it holds a list'),
    ('captions.json', '[' * 100_000, r'captions\.json: it is nested too deeply'),
    ('captions.json', b'{"a":\n "\xe9"}', r'captions\.json, line 2: the file is not UTF-8'),
    ('captions.csv', 'picture,text\na,A.\n',
     r"captions\.csv, line 1: the first line must be name,caption and is 'picture,text'"),
    ('captions.csv', '', r'captions\.csv, line 1: the first line must be'),
    ('captions.csv', b'name,caption\na,\xe9\n', r'captions\.csv, line 2: the file is not UTF-8.*CSV UTF-8'),
    ('captions.csv', 'name,caption\na,"A.\n', r'captions\.csv, line 2: unexpected end of data'),
])
def test_a_file_that_makes_no_sense_is_refused_by_line(write, name, text, error):
    with pytest.raises(ValueError, match=error):
        read_sentences(write(name, text))


def test_one_file_of_captions(write, tmp_path):
    assert captions_file(tmp_path) is None
    file = write('captions.csv', 'name,caption\n')
    assert captions_file(tmp_path) == file and read_sentences(file) == []
    write('captions.json', '{}')
    with pytest.raises(ValueError, match='captions.json and captions.csv: remove one'):
        captions_file(tmp_path)

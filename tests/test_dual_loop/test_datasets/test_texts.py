import pytest

from dual_loop.datasets.texts import is_file_name, is_text, printable


@pytest.mark.parametrize('value, expected', [
    ('left box', True), ('猫', True), ('?', True), (' a\n', True), ('e\u0301', True), ('', False), (' \t\n', False),
    ('\u200b\ufeff', False), ('\u00a0\u3000', False), ('\x00\x07', False), ('half \ud800', False), (None, False),
    (3, False), (b'bytes', False), (['list'], False)])
def test_texts_have_something_to_see(value, expected):
    assert is_text(value) == expected


@pytest.mark.parametrize('value, expected', [
    ('a.jpg', True), ('blåbær 1.jpg', True), ('..', False), ('.', False), ('a/b.jpg', False), ('/etc/passwd', False),
    ('a\0.jpg', False), ('\udce9.jpg', False), (7, False)])
def test_names_of_files(value, expected):
    assert is_file_name(value) == expected


def test_what_is_no_utf8_is_shown_by_its_number():
    name = b'caf\xe9.jpg'.decode('utf-8', 'surrogateescape')
    assert printable(name) == 'caf\\udce9.jpg' and printable('café') == 'café' and printable(3) == '3'

"""Breaking text into lines."""

from dual_loop.visualization.lettering import text_font, wrap


def test_wrap_keeps_every_word_and_no_line_is_too_long():
    font = text_font(14)
    text = 'the second object from the left, incomprehensibilities, and a_very_long_name_without_a_space_in_it'
    lines = wrap(text, font, 90)
    assert all(font.getlength(line) <= 90 for line in lines)
    assert ''.join(lines).replace(' ', '') == text.replace(' ', '')
    assert wrap('a b c', font, 200) == ['a b c'] and wrap('', font, 90) == []

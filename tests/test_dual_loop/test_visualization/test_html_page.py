"""What every page has in common."""

import re

from PIL import Image

from dual_loop.visualization.html_page import STYLE, address, breakable, facts, pictures, write_page


def test_names_break_behind_their_signs_only():
    assert breakable('loop1/caption_len') == 'loop1/<wbr>caption_<wbr>len'
    assert breakable('<a>/') == '&lt;a&gt;/'


def test_no_page_is_wider_than_its_window():
    """Words are not cut where a table could scroll, and pictures and tables stay in their frames."""
    assert 'word-break' not in STYLE and re.search(r'\.scroll { overflow-x: auto; }', STYLE)
    assert re.search(r'main {[^}]*overflow-wrap: break-word', STYLE)
    assert all(f'min({width}, 100%)' in STYLE for width in ('250px', '420px'))


def test_a_page_needs_nothing_else(tmp_path):
    page = write_page(tmp_path / 'a.html', '<t>', [pictures([('<l>', Image.new('RGB', (4, 4)))]),
                                                   pictures([('x', 'b%20c.png')]), facts([('<n>', '<b>v</b>')])])
    text = page.read_text()
    assert '<title>&lt;t&gt;</title>' in text and 'alt="&lt;l&gt;"' in text and 'src="b%20c.png"' in text
    assert '<th>&lt;n&gt;</th><td><b>v</b></td>' in text and 'width=device-width' in text
    assert not re.search('<script|<link|https?:|url\\(|@import', text)


def test_addresses_are_relative_and_quoted(tmp_path):
    assert address(tmp_path / 'a b' / 'c#.png', tmp_path / 'out') == '../a%20b/c%23.png'

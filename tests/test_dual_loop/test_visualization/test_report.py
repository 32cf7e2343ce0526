"""The report as a reader's browser parses it."""

import base64
import io
from html.parser import HTMLParser

import pytest
from PIL import Image

from dual_loop.visualization.report import ReportPanel, write_report
from dual_loop.visualization.summary import SummaryRow

VOID = {'meta', 'img', 'line', 'polyline'}
NASTY = '<script>alert("x")</script> & \'quotes\''


class Page(HTMLParser):
    """Collects what the tests look at, and checks that every tag is closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.images, self.attributes, self.open = [], [], [], []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == 'img':
            self.images.append(dict(attrs))
        if tag not in VOID:
            texts = self.text.setdefault(tag, [])
            self.open.append((tag, len(texts)))
            texts.append('')

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for tag, index in self.open:
            self.text[tag][index] += data


def picture(colour='red') -> Image.Image:
    return Image.new('RGB', (8, 4), colour)


def write(path, **kwargs) -> Page:
    arguments = dict(title='run', panels=[], summary_table=[], scalars={}) | kwargs
    assert write_report(path, **arguments) == path
    assert [file.name for file in path.parent.iterdir() if file.suffix == '.tmp'] == []
    return Page(path.read_text(encoding='utf-8'))


def test_every_panel_is_there_with_its_caption_step_and_iou(tmp_path):
    panels = [ReportPanel(200, picture('blue'), 'a blue square', 'b', 'shapes', 0.514),
              ReportPanel(0, picture('green'), '', 'a', 'sav'),
              ReportPanel(100, picture('red'), 'the red one', 'b', 'shapes', 0.0)]
    page = write(tmp_path / 'deep' / 'report.html', panels=panels)
    # The same sample stands together, in the order of the steps; samples in the order in which they came.
    assert page.text['figcaption'] == ['step 100IoU 0.00the red one', 'step 200IoU 0.51a blue square',
                                       'step 0(no caption)']
    assert page.text['h3'] == ['shapes · b', 'sav · a']
    for image, colour in zip(page.images, ('red', 'blue', 'green')):
        head, data = image['src'].split(',')
        assert head == 'data:image/png;base64'
        decoded = Image.open(io.BytesIO(base64.b64decode(data)))
        assert list(decoded.get_flattened_data()) == list(picture(colour).get_flattened_data())
    assert [image['alt'] for image in page.images] == ['the red one', 'a blue square', '']


def test_all_text_is_escaped(tmp_path):
    page = write(tmp_path / 'report.html', title=NASTY, panels=[ReportPanel(1, picture(), NASTY, NASTY, NASTY)],
                 summary_table=[SummaryRow(NASTY, 1.0, 2.0)], scalars={NASTY: ([0, 1], [1.0, 2.0])},
                 highlights=[SummaryRow(NASTY, 0.1, 0.2)])
    assert 'script' not in page.tags
    assert page.text['h1'] == [NASTY] and page.text['title'] == [NASTY, NASTY]  # of the page and of the curve
    assert page.images[0]['alt'] == NASTY and page.text['figcaption'] == [f'step 1{NASTY}']
    assert page.text['h3'] == [f'{NASTY} · {NASTY}'] and NASTY in page.text['th']
    assert sum(text.startswith(NASTY) for text in page.text['div']) >= 3  # tile, its name, the curve's name


def test_table_and_highlights_show_first_and_last(tmp_path):
    page = write(tmp_path / 'report.html', summary_table=[SummaryRow('loss1', 2.0, 0.5, 40)],
                 highlights=[SummaryRow('held-out mask IoU', 0.123, 0.541)])
    assert page.text['tr'] == ['quantityfirstlastchange', 'loss120.5-1.5 (-75 %)']
    assert 'held-out mask IoU0.123 → 0.541' in page.text['div']


def test_written_pictures_are_linked_relative_to_the_page(tmp_path):
    (tmp_path / 'vis data').mkdir()
    picture().save(tmp_path / 'vis data' / 'step 1#0.png')
    panels = [ReportPanel(1, tmp_path / 'vis data' / 'step 1#0.png', 'x')]
    page = write(tmp_path / 'out' / 'report.html', panels=panels)
    assert page.images[0]['src'] == '../vis%20data/step%201%230.png'
    with pytest.raises(FileNotFoundError, match='nothing.png: the report should link'):
        write(tmp_path / 'report.html', panels=[ReportPanel(1, tmp_path / 'nothing.png', 'x')])


def test_nothing_comes_from_elsewhere_and_both_themes_are_styled(tmp_path):
    path = tmp_path / 'report.html'
    page = write(path, panels=[ReportPanel(1, picture(), 'x')], scalars=dict(cosine=([0, 1], [-1.0, 1.0])))
    assert not {'script', 'link', 'iframe', 'object'} & set(page.tags)
    assert all('//' not in value for name, value in page.attributes if name in ('src', 'href', 'style'))
    style = page.text['style'][0]
    assert 'url(' not in style and '@import' not in style and 'prefers-color-scheme: dark' in style
    assert page.tags.count('svg') == 1


def test_an_empty_run_says_so(tmp_path):
    page = write(tmp_path / 'report.html')
    assert page.text['p'] == ['No numbers were logged.', 'No pictures were taken.']


def test_a_failed_report_leaves_the_old_one(tmp_path):
    path = tmp_path / 'report.html'
    write(path, title='old')
    with pytest.raises(FileNotFoundError):
        write(path, title='new', panels=[ReportPanel(1, tmp_path / 'nothing.png', 'x')])
    assert Page(path.read_text(encoding='utf-8')).text['h1'] == ['old']

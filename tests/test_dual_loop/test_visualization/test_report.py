"""The report as a reader's browser parses it."""

import base64
import io
from html.parser import HTMLParser

import pytest
from PIL import Image

from dual_loop.visualization.quantities import explain
from dual_loop.visualization.report import Report, ReportPanel, link_evaluation, write_report
from dual_loop.visualization.summary import SummaryRow

VOID = {'meta', 'img', 'line', 'polyline', 'wbr'}
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
            keys = [tag, *(f'.{css}' for css in dict(attrs).get('class', '').split())]
            self.open.append((tag, [(key, len(self.text.setdefault(key, []))) for key in keys]))
            for key in keys:
                self.text[key].append('')

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, places in self.open:
            for key, index in places:
                self.text[key][index] += data

    def rows(self) -> list[str]:
        return self.text.get('tr', [])


def picture(colour='red') -> Image.Image:
    return Image.new('RGB', (8, 8), colour)


def write(path, **what) -> Page:
    assert write_report(path, Report(**dict(title='run') | what)) == path
    assert [file.name for file in path.parent.iterdir() if file.suffix == '.tmp'] == []
    return Page(path.read_text(encoding='utf-8'))


def test_latest_rows_stand_open_and_earlier_ones_are_folded(tmp_path):
    both = [('Image', picture('blue')), ('Found', picture('red'))]
    panels = [ReportPanel(200, both, 'a blue square', 'b', 'shapes', 0.514),
              ReportPanel(0, [('Image', picture('green'))], '', 'a', 'sav'),
              ReportPanel(100, [('Image', picture('red'))], 'the red one', 'b', 'shapes', 0.0)]
    page = write(tmp_path / 'deep' / 'report.html', panels=panels)
    assert page.text['h3'] == ['Step 200'] and page.text['summary'] == ['Step 100', 'Step 0']
    assert page.rows() == ['a blue square', 'the red one', '(no words)']
    assert [text for text in page.text['.chip'] if 'IoU' in text] == ['IoU 0.51', 'IoU 0.00']
    assert page.text['figcaption'] == ['Image', 'Found', 'Image', 'Image']
    for image, colour in zip(page.images, ((0, 0, 255), (255, 0, 0), (255, 0, 0), (0, 128, 0))):
        head, data = image['src'].split(',')
        assert head == 'data:image/jpeg;base64'
        shown = Image.open(io.BytesIO(base64.b64decode(data))).getpixel((4, 4))
        assert shown == pytest.approx(colour, abs=4)


def test_texts_stand_with_their_labels_and_what_changed_is_marked(tmp_path):
    texts = [("The teacher's", [('a red ring', False)]),
             ('Corrupted', [('a ', False), ('<ck> x', True), (' ring', False)])]
    page = write(tmp_path / 'report.html', panels=[ReportPanel(1, [], 'said', texts=texts)])
    assert page.rows() == ["The teacher'sa red ring", 'Corrupteda <ck> x ring']
    assert page.text['mark'] == ['like this', '<ck> x']


def test_all_text_is_escaped(tmp_path):
    page = write(tmp_path / 'report.html', title=NASTY, config=NASTY, status=NASTY, facts=[(NASTY, NASTY)],
                 panels=[ReportPanel(1, [(NASTY, picture())], NASTY, NASTY, NASTY, texts=[(NASTY, [(NASTY, True)])])],
                 scalars={NASTY: ([0, 1], [1.0, 2.0])}, losses={NASTY: [NASTY]},
                 highlights=[SummaryRow('x', 0.1, 0.2, title=NASTY)])
    assert 'script' not in page.tags
    assert page.text['h1'] == [NASTY] and page.text['title'] == [NASTY, NASTY]  # of the page and of the curve
    assert page.images[0]['alt'] == NASTY and page.text['pre'] == [NASTY] and NASTY in page.text['mark']
    assert page.rows() == [NASTY * 2, NASTY * 2] and page.text['h2'][0] == f'Losses of {NASTY}'


def test_losses_are_large_and_the_rest_is_folded_each_with_its_meaning(tmp_path):
    names = ['loop1/loss', 'loop1/mask', 'loop2/loss', 'loop1/caption_len', 'cosine', 'cosine/lora', 'w1',
             'seconds/loop1', 'time', 'held_out/giou', 'cycle/cider', 'lr']
    series = {name: ([0, 10], [1.0, 0.5]) for name in names}
    losses = {'loop 1': ['loop1/loss', 'loop1/mask', 'loop1/not_there'], 'loop 2': ['loop2/loss']}
    page = write(tmp_path / 'report.html', scalars=series, losses=losses)
    grids = page.text['.grid']
    assert [grid.count('→') for grid in page.text['.large']] == [2, 1]
    assert 'loop1/loss' in grids[0] and page.text['h2'][:2] == ['Losses of loop 1', 'Losses of loop 2']
    assert page.text['summary'] == ['Cycle', 'Gradients', 'Held-out masks', 'Other figures of loop1', 'Others',
                                    'Seconds of a step']
    folded = ''.join(page.text['details'])
    assert all((name in folded) == (name not in ('loop1/loss', 'loop1/mask', 'loop2/loss')) for name in names)
    cards = dict(zip(page.text['.name'][1:], page.text['.about']))  # the first is the status
    assert set(cards) == set(names)
    assert all(cards[name].startswith(explain(name).meaning) and cards[name] for name in names)
    assert page.text['.figures'][0] == '1 → 0.5 -0.5 (-50 %)'


def test_before_and_after_stand_first_and_what_is_not_known_yet_is_open(tmp_path):
    page = write(tmp_path / 'report.html', highlights=[
        SummaryRow('held_out/giou', 0.123, 0.541, title='held-out giou'), SummaryRow('held_out/ciou', 0.5, None)])
    assert page.text['.big'] == ['0.123 → 0.541', '0.5 → …'] and 'Mean IoU' in page.text['.about'][0]


def test_facts_and_the_folded_config(tmp_path):
    facts = [('Command', 'dual-loop train c.py'), ('Card', 'H100')]
    page = write(tmp_path / 'report.html', facts=facts, config='a = 1\n')
    assert page.rows() == ['Commanddual-loop train c.py', 'CardH100']
    assert page.text['details'] == ['Configa = 1\n'] and ('open', None) not in page.attributes


def test_written_pictures_are_linked_relative_to_the_page(tmp_path):
    panels = [ReportPanel(1, [('x', tmp_path / 'vis data' / 'step 1#0.png')], 'x')]
    page = write(tmp_path / 'out' / 'report.html', panels=panels)
    assert page.images[0]['src'] == '../vis%20data/step%201%230.png'


def test_nothing_comes_from_elsewhere_and_both_themes_are_styled(tmp_path):
    page = write(tmp_path / 'report.html', panels=[ReportPanel(1, [('x', picture())], 'x')],
                 scalars=dict(cosine=([0, 1], [-1.0, 1.0])))
    assert not {'script', 'link', 'iframe', 'object'} & set(page.tags)
    addresses = [value for name, value in page.attributes if name in ('src', 'href', 'style')]
    assert addresses and all(each.startswith('data:image/') or '//' not in each for each in addresses)
    style = page.text['style'][0]
    assert 'url(' not in style and '@import' not in style and 'prefers-color-scheme: dark' in style
    assert page.tags.count('svg') == 1


def test_an_empty_run_says_so(tmp_path):
    page = write(tmp_path / 'report.html')
    assert page.text['.none'] == ['No numbers were logged yet.', 'No pictures were taken.']


def test_links_of_evaluations_come_once_and_outlive_a_renewal(tmp_path):
    report = tmp_path / 'run' / 'report.html'
    write(report)
    for name in ('one', 'two', 'one'):
        link_evaluation(report, tmp_path / 'eval' / f'{name} <&>.html', f'{name} <&>')
    page = write(report, title='renewed')
    assert [value for name, value in page.attributes if name == 'href'] == [
        '../eval/one%20%3C%26%3E.html', '../eval/two%20%3C%26%3E.html']
    assert page.text['a'] == ['one <&>', 'two <&>'] and page.text['h1'] == ['renewed']

"""The page of samples as a browser reads it."""

import base64
import io
from html.parser import HTMLParser

import pytest
from PIL import Image

from dual_loop.visualization.sample_page import PageSample, PageSource, write_sample_page
from dual_loop.visualization.sample_view import sample_views
from dual_loop.visualization.token_view import SequenceBuilder

HOSTILE = '<script>alert("1")</script> & "quoted" <b>bold'


class Page(HTMLParser):
    """Elements with their text, and whether every one is closed in order."""

    VOID = {'meta', 'img', 'br', 'wbr'}

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        assert not self.open, f'not closed: {self.open}'

    def handle_starttag(self, tag, attributes):
        element = dict(attributes) | dict(tag=tag, text='')
        self.elements.append(element)
        if tag not in self.VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()['tag'] == tag

    def handle_data(self, data):
        for element in self.open:
            element['text'] += data

    def having(self, tag, css=''):
        return [each for each in self.elements
                if each['tag'] == tag and css in (each.get('class') or '').split() + ['']]


@pytest.fixture(scope='module')
def builder(network_sizes):
    return SequenceBuilder(dict(base=dict(tokenizer='assets/tiny', network=network_sizes, random_weights=True)))


@pytest.fixture
def view(make_sample, builder):
    [view] = sample_views('loop 2', make_sample(key=1, caption=HOSTILE, describes=True), builder, height=96)
    return view


@pytest.fixture
def page(view, tmp_path):
    sources = [PageSource('loop 2', 'dam <1>', 7, [PageSample(view, tmp_path / 'a b_0.png', 'in place of <x>')],
                          ['bad sample <y>']),
               PageSource('loop 2', 'other', 3), PageSource('held out', 'refcoco', 5)]
    return Page(write_sample_page(tmp_path / 'index.html', 'Samples of <x>', sources, ['no <z>']).read_text('utf-8'))


def test_all_text_is_escaped(page):
    assert not page.having('script') and not page.having('b')
    assert page.having('p', 'caption')[0]['text'] == HOSTILE
    assert page.having('h1')[0]['text'] == 'Samples of <x>'
    assert [note['text'] for note in page.having('p', 'note')] == ['no <z>', 'bad sample <y>', 'in place of <x>']


def test_sources_stand_below_their_loader(page):
    headings = [each['text'] for each in page.elements if each['tag'] in ('h2', 'h3')]
    assert headings == ['loop 2', 'dam <1> · 7 samples', 'other · 3 samples', 'held out', 'refcoco · 5 samples']


def test_pictures_are_embedded_and_the_file_is_linked(page, view):
    images = page.having('img')
    assert [image['alt'] for image in images] == [label for label, _ in view.panels]
    for image, (_, picture) in zip(images, view.panels):
        kind, _, data = image['src'].partition(';base64,')
        shown = Image.open(io.BytesIO(base64.b64decode(data)))
        assert kind == 'data:image/jpeg' and shown.size == picture.size
    assert [link['href'] for link in page.having('a')] == ['a%20b_0.png']
    assert not any('http' in (each.get(key) or '') for each in page.elements for key in ('src', 'href'))


def test_chips_are_the_tokens_with_their_labels_and_ids(page, view, vocabulary):
    count = len([chip for sequence in view.sequences for chip in sequence.chips])
    chips = page.having('span', 'tok')[-count:]
    supervised = [chip for chip in chips if 'supervised' in chip['class'].split()]
    labels = [label for sequence in view.sequences for label in sequence.row.labels if label >= 0]
    assert [int(index) for chip in supervised for index in chip['title'].split()] == labels
    image, region = (next(chip for chip in chips if kind in chip['class'].split()) for kind in ('image', 'region'))
    assert image['text'] == '<IMG_CONTEXT> x 16' and image['title'] == f'{vocabulary.image_id} x 16'
    assert region['text'].startswith('<IMG_CONTEXT> x ')


def test_both_colour_schemes_colour_every_kind_of_chip(view, tmp_path):
    text = write_sample_page(tmp_path / 'index.html', 'x', []).read_text()
    dark = text.split('(prefers-color-scheme: dark)')[-1]
    for kind in ('image', 'region', 'slot', 'seg', 'supervised'):
        assert text.count(f'--{kind}:') == 2 and f'--{kind}:' in dark

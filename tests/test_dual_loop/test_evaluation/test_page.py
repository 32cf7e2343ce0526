import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from dual_loop.evaluation.page import Example, choose_examples, histogram, write_page
from dual_loop.evaluation.results import ResultsError
from dual_loop.evaluation.scores import mask_metrics


def referring(count=30, **more):
    return [dict(image=number // 2, sample_id=f's{number:02}', text=f'the <b>{number}</b> & co', intersection=number,
                 union=count, seg=number % 2 == 0, answer=f'Sure, it is [SEG] <{number}>.', **more)
            for number in range(count)]


def make_results(samples, **change):
    return dict(schema=1, task='referring', protocol='generate', samples=samples,
                dataset=dict(name='refcoco', split='val', split_by='unc', data_root_name='data', digest='d' * 64),
                model=dict(name='<tiny>', fingerprint='f' * 64, checkpoint=None), prompt='Please segment {} & more.',
                dtype='fp32', batch_size=2, max_new_tokens=16, counts=dict(images=15, sentences=30),
                metrics=dict(ciou=0.4833, giou=0.4833, words=3.25), versions=dict(torch='2.11.0'),
                timing=dict(seconds=1.5, device='cpu')) | change


def drawn(colour='red', size=(40, 30)):
    return [('predicted', Image.new('RGB', size, colour)), ('true', Image.new('RGB', size, 'green'))]


class Reader(HTMLParser):
    """Checks that tags close in order; keeps text and addresses."""

    VOID = ('meta', 'img', 'line', 'rect', 'wbr')

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.sources = [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID or (tag == 'rect' and not self.get_starttag_text().endswith('/>')):
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ('src', 'href')]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_best_and_worst_are_the_ends_of_the_ranking_and_random_the_rest():
    chosen = choose_examples(referring(), count=4)
    assert chosen['best'] == ['s29', 's28', 's27', 's26'] and chosen['worst'] == ['s00', 's01', 's02', 's03']
    assert len(chosen['random']) == 4 and not {*chosen['random']} & {*chosen['best'], *chosen['worst']}
    assert chosen == choose_examples(referring()[::-1], count=4)
    assert chosen['random'] != choose_examples(referring(), count=4, seed=1)['random']


def test_equal_scores_are_taken_by_chance():
    samples = [dict(sample, intersection=0) for sample in referring()]
    first, other = (choose_examples(samples, 4, seed) for seed in (0, 1))
    assert first['worst'] != other['worst'] and first['worst'] != ['s00', 's01', 's02', 's03']


@pytest.mark.parametrize('count, sizes', [(0, (0, 0, 0)), (1, (0, 0, 1)), (5, (2, 2, 1)), (9, (4, 4, 1)),
                                          (30, (8, 8, 8))])
def test_few_samples_are_shared_out_without_repeats(count, sizes):
    chosen = choose_examples(referring(count), count=8)
    assert tuple(map(len, chosen.values())) == sizes
    assert len({name for names in chosen.values() for name in names}) == sum(sizes)


def test_a_sample_of_several_conditions_has_their_mean_score_and_captions_their_cider():
    samples = [dict(sample_id=name, intersection=pixels, union=10) for name, values in
               dict(a=(9, 0), b=(5, 5), c=(2, 2), d=(3, 4)).items() for pixels in values]
    assert choose_examples(samples, 1) | dict(random=[]) == dict(best=['b'], worst=['c'], random=[])
    assert choose_examples([dict(sample_id='x', cider=0.1), dict(sample_id='y', cider=2.0)])['best'] == ['y']


def test_the_page_is_whole_escaped_and_needs_nothing_else(tmp_path):
    samples = referring()
    examples = [Example('s29', 'best', drawn()), Example('s00', 'worst', drawn('blue')),
                Example('s07', 'random', drawn())]
    true = mask_metrics(samples)
    metrics = dict(ciou=true['ciou'], giou=true['giou'], no_seg_rate=true['no_seg_rate'] + 0.5, words=3.25)
    path = write_page(tmp_path / 'made' / 'page.html', make_results(samples, metrics=metrics), examples)
    html = path.read_text(encoding='utf-8')
    page = Reader(html)
    text = ' '.join(page.text).replace('_ ', '_')
    assert [file.name for file in path.parent.iterdir()] == ['page.html']
    assert len(page.sources) == 6 and all(source.startswith('data:image/') for source in page.sources)
    assert '<script' not in html and '<b>' not in html
    for expected in ('<tiny>', 'the <b>29</b> & co', 'Sure, it is [SEG] <0>.', 'IoU 0.97', 'IoU 0.00', 'no [SEG]',
                     'Please segment {} & more.', 'f' * 64, 'protocol generate · 30 samples of 15 images',
                     'data: data', f'{true["ciou"]:.4g}', '3.25', 'torch', 'Random'):
        assert expected in text, expected
    assert text.index('Best') < text.index('Worst') < text.index('Random') and text.count('95 % interval') == 2
    assert '95 % interval' not in text.partition('no_seg_rate')[2].partition('words')[0], 'another quantity\'s'
    picture = Image.open(io.BytesIO(base64.b64decode(page.sources[2].partition(',')[2])))
    assert picture.size == (40, 30) and np.allclose(picture.getpixel((20, 15)), (0, 0, 255), atol=3)


def test_captions_show_their_references_and_scores(tmp_path):
    samples = [dict(image=0, sample_id='s', text='a dog', references=['the brown dog', 'dog <left>'], cider=1.25,
                    meteor=0.5, bleu4=None)]
    path = write_page(tmp_path / 'page.html', make_results(samples, task='captions', metrics=dict(cider=1.25)),
                      [Example('s', 'best', drawn())])
    text = ' '.join(Reader(path.read_text(encoding='utf-8')).text)
    for expected in ('a dog', 'the brown dog', 'dog <left>', 'CIDEr 1.25', 'METEOR 0.50', 'CIDEr of the sentences'):
        assert expected in text, expected
    assert 'BLEU' not in text and 'IoU' not in text


def test_a_cycle_has_a_table_of_conditions_and_a_histogram_of_each(tmp_path):
    samples = [dict(sample, condition=condition, frame=frame) for sample in referring(4)
               for condition in ('human', 'own') for frame in ('same', 'paired')]
    metrics = {'giou': 0.5, 'giou/human/same': 0.71, 'giou/own/paired': 0.42, 'ciou/human/same': 0.33}
    path = write_page(tmp_path / 'page.html', make_results(samples, task='cycle', metrics=metrics),
                      [Example('s03', 'best', drawn())])
    html = path.read_text(encoding='utf-8')
    assert ('<tr><th>condition</th><th>giou</th><th>ciou</th></tr>'
            '<tr><th>human/<wbr>same</th><td>0.71</td><td>0.33</td></tr>'
            '<tr><th>own/<wbr>paired</th><td>0.42</td><td></td></tr>') in html
    assert html.count('<svg') == 4 and 'own · paired' in html
    assert html.count('<p class="caption">') == 4  # the example, in each condition


def test_results_without_samples_make_a_page(tmp_path):
    Reader(write_page(tmp_path / 'page.html', make_results([])).read_text(encoding='utf-8'))


@pytest.mark.parametrize('example', [Example('nobody', 'best', ()), Example('s01', 'funny', ())])
def test_an_example_that_the_results_do_not_have_is_refused(tmp_path, example):
    with pytest.raises(ResultsError, match=example.sample_id):
        write_page(tmp_path / 'page.html', make_results(referring()), [example])
    assert not list(tmp_path.iterdir())


def test_bars_of_the_histogram_are_as_high_as_their_counts():
    svg = histogram([0.0, 0.01, 0.52, 1.0])
    heights = {number: float(height) for number, height in enumerate(re.findall(r'<rect.*?height="([\d.]+)"', svg))}
    assert len(heights) == 20 and {number: height for number, height in heights.items() if height} == {
        0: 86, 10: 43, 19: 43}
    assert '0.50 to 0.55: 1' in svg and 'highest bar: 2 of 4' in svg


def test_the_report_of_the_run_is_linked(tmp_path):
    report = tmp_path / 'a run/report.html'
    path = write_page(tmp_path / 'eval' / 'page.html', make_results(referring(4)), report=report)
    assert Reader(path.read_text()).sources == ['../a%20run/report.html']

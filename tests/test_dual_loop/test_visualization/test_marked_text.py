"""Which pieces of a text are marked."""

from dual_loop.visualization.marked_text import as_html, marked


def test_tokens_that_differ_are_marked_and_the_text_is_whole(vocabulary):
    reference = vocabulary.encode('A large red ring on the left')
    ids = list(reference)
    ids[2], ids[-1] = (vocabulary.encode(' blue')[-1], vocabulary.encode(' blue')[0])
    pieces = marked(vocabulary, ids, reference)
    assert ''.join(text for text, _ in pieces) == vocabulary.decode(ids)
    assert [changed for _, changed in pieces] == [False, True, False, True]
    assert ''.join(text for text, changed in pieces[:1]) == vocabulary.decode(ids[:2])
    assert marked(vocabulary, reference, reference) == marked(vocabulary, reference)
    assert [changed for _, changed in marked(vocabulary, reference)] == [False]


def test_lengths_may_differ(vocabulary):
    long, short = vocabulary.encode('a red ring and a star'), vocabulary.encode('a red ring')
    (same, first), (more, second) = marked(vocabulary, long, short)
    assert (first, second) == (False, True) and same + more == 'a red ring and a star'
    assert marked(vocabulary, [], short) == []


def test_a_character_of_several_tokens_is_marked_as_one(vocabulary):
    ids = vocabulary.encode('é é')
    assert len(ids) > 3, 'bytes'
    other = [*ids[:-1], vocabulary.encode('è')[-1]]
    pieces = marked(vocabulary, other, ids)
    assert ''.join(text for text, _ in pieces) == 'é è' and pieces[-1][1] and pieces[-1][0].strip() == 'è'


def test_html_escapes_and_leaves_spaces_out_of_the_mark():
    assert as_html([('a', False), (' <b> ', True), ('c', False), (' ', True)]) == 'a <mark>&lt;b&gt;</mark> c'

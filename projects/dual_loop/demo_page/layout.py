"""The page itself, made of gradio's components: one picture, and beside it a tab for each question."""

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from dual_loop.refusals import refusal
from dual_loop.visualization.palette import PREDICTED_COLOUR, PROMPT_COLOUR, TARGET_COLOUR

from .canvas import Canvas
from .questions import MAX_PHRASE, Questions, Reply
from .scenes import Example

#: Pictures of the answers in the tabs.
FOUND, DESCRIBED, WENT = 1, 0, 2
FIND, DESCRIBE, LOOP = TABS = ('find', 'describe', 'loop')
KINDS = [('Point', 'point'), ('Box: two corners', 'box'), ('Outline: click round it', 'outline')]
#: In the page without being seen. What is left out of the page (False) does not always come back into a tab.
HIDDEN = 'hidden'
HEAD = ('<h1>dual-loop</h1><p><b>Write words</b>, and it finds the object. <b>Click an object</b>, and it writes the '
        'words. <b>The loop</b> does both: from a region to words, and by these words back to the region.</p>')
ROUND = ('<p>The model describes what is marked in the picture, and then looks for its own words: in the same picture, '
         'and in this second one.</p>')
HINTS = {FIND: 'Say what to find, or click an object here to have it described.',
         DESCRIBE: 'Click an object: the <b class="prompt">orange</b> line shows what is marked.',
         LOOP: 'Click an object: the <b class="prompt">orange</b> line shows what is marked.'}
LEGEND = ('<p><b class="prompt">orange</b>: the marked region; <b class="found">blue</b>: found by the words; '
          '<b class="truth">green</b>: where the object is in the second picture</p>')
FAULT = 'Something went wrong in the program, not in what you did. The terminal that runs the page says more.'
STYLE = Path(__file__).with_name('style.css')


def theme() -> gr.themes.Base:
    """Fonts of the user's machine; those that gradio names by itself come from elsewhere."""
    plain = [gr.themes.Font(name) for name in ('system-ui', '-apple-system', 'Segoe UI', 'Roboto', 'sans-serif')]
    mono = [gr.themes.Font(name) for name in ('ui-monospace', 'Consolas', 'monospace')]
    return gr.themes.Default(primary_hue='blue', neutral_hue='slate', font=plain, font_mono=mono)


def style() -> str:
    """The rules of ``style.css`` with the colours of the outlines."""
    colours = dict(prompt=PROMPT_COLOUR, found=PREDICTED_COLOUR, truth=TARGET_COLOUR)
    named = ''.join(f'--{name}: rgb{colour};' for name, colour in colours.items())
    return f':root {{{named}}}\n{STYLE.read_text(encoding="utf-8")}'


def build(questions: Questions, examples: Sequence[Example]) -> gr.Blocks:
    """The page, with the first example in it."""
    posed = [questions.pose(example) for example in examples]
    with gr.Blocks(title='dual-loop', analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        _Page(questions, posed, [example.phrase for example in examples])
    return page


class _Page:
    """Components and what happens when they are used.

    The states hold what a user chose; None stands for the first example, so that a state begins without a copy of the
    model.
    """

    def __init__(self, questions: Questions, posed: Sequence[tuple[Canvas, Canvas]], phrases: Sequence[str]):
        self.questions, self.posed, self.phrases = questions, posed, phrases
        self._start: tuple[Canvas, Canvas] = posed[0]
        self.canvas, self.second, self.tab = gr.State(None), gr.State(None), gr.State(FIND)
        gr.HTML(HEAD, elem_id='head', container=False)
        with gr.Row(elem_id='main'):
            with gr.Column(scale=6, min_width=320):
                self._add_picture()
            with gr.Column(scale=7, min_width=320), gr.Tabs(elem_id='tabs') as self.tabs:
                self._add_find()
                self._add_describe()
                self._add_loop()
        gr.HTML(_foot(questions), elem_id='foot', container=False)
        self._connect()

    def _add_picture(self) -> None:
        self.picture = _image('Picture', 'picture', self._start[0].shown(marked=False))
        self.hint = gr.HTML(HINTS[FIND], elem_id='hint', container=False)
        with gr.Row(visible=False, elem_id='marking') as self.marking:
            self.kind = gr.Radio(KINDS, value='point', label='Mark by', elem_id='kind', scale=5)
            self.clear = gr.Button('Clear', size='sm', elem_id='clear', scale=1, min_width=80)
        self.note = gr.HTML('', elem_id='note', container=False, visible=HIDDEN)
        gr.HTML('Other pictures:', container=False)
        self.gallery = gr.Gallery([(first.shown(marked=False), None) for first, _ in self.posed], columns=6, rows=1,
                                  show_label=False, allow_preview=False, interactive=False, height='auto',
                                  object_fit='cover', elem_id='examples', buttons=[], container=False)
        self.own = gr.UploadButton('A picture of your own', size='sm', type='filepath', elem_id='own')

    def _add_find(self) -> None:
        with gr.Tab('Find', id=FIND) as self.find_tab:
            self.phrase = gr.Textbox(self.phrases[0], label='What shall be found?', placeholder='the red ring', lines=1,
                                     max_length=MAX_PHRASE, elem_id='phrase', autofocus=False)
            self.find = gr.Button('Find it', variant='primary', elem_id='find')
            self.found = _answer('found', FOUND)

    def _add_describe(self) -> None:
        with gr.Tab('Describe', id=DESCRIBE) as self.describe_tab:
            self.describe = gr.Button('Describe the marked region', variant='primary', elem_id='describe')
            self.described = _answer('described')

    def _add_loop(self) -> None:
        with gr.Tab('The loop', id=LOOP) as self.loop_tab:
            with gr.Row():
                with gr.Column(min_width=200):
                    self.picture2 = _image('Second picture', 'picture2', self._start[1].shown())
                    self.own2 = gr.UploadButton('Another second picture', size='sm', type='filepath', elem_id='own2')
                with gr.Column(min_width=200):
                    gr.HTML(ROUND, container=False)
                    self.go = gr.Button('Go round', variant='primary', elem_id='go')
            self.went = _answer('went', WENT)

    def _connect(self) -> None:
        answers = [*self.found, *self.described, *self.went]
        everything = [self.canvas, self.second, self.picture, self.picture2, self.phrase, self.note, *answers]
        # All happens in the order of the clicks, so that a question is about what was marked before it, no click of a
        # quick user is left out, and no tab that was turned to before a click puts the picture back.
        in_turn: dict[str, Any] = dict(concurrency_id='in turn', concurrency_limit=1)
        marking = in_turn | dict(show_progress='hidden', trigger_mode='multiple')
        _on(self.gallery.select, self._choose, [self.tab], everything, **marking)
        _on(self.own.upload, self._open, [self.own, self.tab], everything, show_progress_on=self.picture, **in_turn)
        _on(self.own2.upload, self._open_second, [self.own2], [self.second, self.picture2, self.note, *self.went],
            show_progress_on=self.picture2, **in_turn)
        _on(self.picture.select, self._click, [self.canvas, self.tab, self.kind],
            [self.canvas, self.picture, self.note, self.tabs], **marking)
        _on(self.picture2.select, self._click_second, [self.second, self.kind],
            [self.second, self.picture2, self.note], **marking)
        _on(self.clear.click, self._clear, [self.canvas, self.second, self.kind],
            [self.canvas, self.second, self.picture, self.picture2, self.note], **marking)
        for name, tab in zip(TABS, (self.find_tab, self.describe_tab, self.loop_tab)):
            _on(tab.select, partial(self._turn_to, name), [self.canvas],
                [self.tab, self.picture, self.hint, self.marking], show_progress='hidden', **in_turn)
        for event in (self.find.click, self.phrase.submit):
            _on(event, self._find, [self.canvas, self.phrase], self.found, show_progress_on=self.find, **in_turn)
        _on(self.describe.click, self._describe, [self.canvas], self.described, show_progress_on=self.describe,
            **in_turn)
        _on(self.go.click, self._go_round, [self.canvas, self.second], self.went, show_progress_on=self.go,
            **in_turn)

    # What happens: each gives the values of the components that it was connected to.

    def _choose(self, tab: str, event: gr.SelectData) -> list:
        first, second = self.posed[event.index]
        return self._put(first, second, tab, self.phrases[event.index])

    def _open(self, path: str | None, tab: str) -> list:
        canvas, said = _tried(lambda: self.questions.open(Path(path)))
        if canvas is None:
            return self._only_note(said, 5, len(self.found + self.described + self.went))
        return self._put(canvas, _NOTHING, tab, '')

    @staticmethod
    def _only_note(said: str, before: int, after: int = 0) -> list:
        return [gr.skip()] * before + [_note(said)] + [gr.skip()] * after

    def _put(self, first: Canvas, second: 'Canvas | _Nothing', tab: str, phrase: str) -> list:
        shown = second.shown() if isinstance(second, Canvas) else None
        nothing = [value for pictures in (FOUND, DESCRIBED, WENT) for value in _shown(pictures, None)]
        return [first, second, first.shown(tab != FIND), shown, phrase, _note(), *nothing]

    def _open_second(self, path: str | None) -> list:
        canvas, said = _tried(lambda: self.questions.open(Path(path)))
        if canvas is None:
            return self._only_note(said, 2, len(self.went))
        return [canvas, canvas.shown(), _note(), *_shown(WENT, None)]

    def _click(self, canvas: Canvas | None, tab: str, kind: str, event: gr.SelectData) -> list:
        clicked, said = self._clicked(canvas or self._start[0], kind, event)
        if clicked is None:
            return self._only_note(said, 2, 1)
        return [clicked, clicked.shown(), _note(said), gr.Tabs(selected=DESCRIBE) if tab == FIND else gr.skip()]

    def _click_second(self, second: 'Canvas | _Nothing | None', kind: str, event: gr.SelectData) -> list:
        clicked, said = self._clicked(self._second(second), kind, event)
        if clicked is None:
            return self._only_note(said, 2)
        return [clicked, clicked.shown(), _note(said)]

    def _clicked(self, canvas: Canvas | None, kind: str, event: gr.SelectData) -> tuple[Canvas | None, str]:
        if canvas is None:
            return None, ''
        if canvas.kind != kind:
            canvas = canvas.cleared(kind)
        return _tried(lambda: self.questions.mark(canvas, *event.index))

    def _clear(self, canvas: Canvas | None, second: 'Canvas | _Nothing | None', kind: str) -> list:
        first, other = (canvas or self._start[0]).cleared(kind), self._second(second)
        other = other and other.cleared(kind)
        return [first, other or _NOTHING, first.shown(), other.shown() if other else None, _note()]

    def _turn_to(self, name: str, canvas: Canvas | None) -> list:
        canvas = canvas or self._start[0]
        return [name, canvas.shown(name != FIND), HINTS[name], gr.Row(visible=name != FIND)]

    def _find(self, canvas: Canvas | None, phrase: str) -> list:
        return _shown(FOUND, *_tried(lambda: self.questions.find(canvas or self._start[0], phrase)))

    def _describe(self, canvas: Canvas | None) -> list:
        return _shown(DESCRIBED, *_tried(lambda: self.questions.describe(canvas or self._start[0])))

    def _go_round(self, canvas: Canvas | None, second: 'Canvas | _Nothing | None') -> list:
        reply, said = _tried(lambda: self.questions.go_round(canvas or self._start[0], self._second(second)))
        return _shown(WENT, reply, said, LEGEND)

    def _second(self, second: 'Canvas | _Nothing | None') -> Canvas | None:
        if second is None:
            return self._start[1]
        return second if isinstance(second, Canvas) else None


class _Nothing:
    """In place of a second picture where there is none, while None in a state stands for the first example."""


_NOTHING = _Nothing()


def _on(event: Callable, act: Callable, inputs: list, outputs: list, **more: Any) -> None:
    """Connect an event; it is no programming interface, whose description would be part of the page."""
    event(act, inputs, outputs, api_visibility='private', **more)


def _image(label: str, name: str, value: Any, **more: Any) -> gr.Image:
    return gr.Image(value, label=label, format='png', interactive=False, elem_id=name, buttons=[], **more)


def _answer(name: str, pictures: int = 0) -> list:
    """Where a reply is shown: its words, and pictures, each with what stands below it."""
    with gr.Column(elem_id=name, elem_classes='answer'):
        result = [gr.HTML('', elem_id=f'{name}-words', container=False)]
        with gr.Row():
            for number in range(pictures):
                with gr.Column(min_width=140):
                    result += [_image('Answer', f'{name}-picture{number + 1}', None, show_label=False, visible=HIDDEN),
                               gr.HTML('', elem_id=f'{name}-below{number + 1}', container=False)]
    return result


def _shown(pictures: int, reply: Reply | None, said: str = '', legend: str = '') -> list:
    """Values of what ``_answer`` gave, for a reply or for why there is none; of neither, nothing is shown."""
    if reply is None:
        return [_trouble(said), *[gr.Image(None, visible=HIDDEN), ''] * pictures]
    words = f'<p class="headline">{escape(reply.headline)}</p>'
    words += ''.join(f'<p>{escape(each)}</p>' for each in reply.details)
    below = []
    for picture, caption in reply.pictures:
        below += [gr.Image(picture, visible=True), f'<p>{escape(caption)}</p>']
    below += [gr.Image(None, visible=HIDDEN), ''] * (pictures - len(reply.pictures))
    return [words + (legend if reply.pictures else ''), *below]


def _tried(act: Callable[[], Any]) -> tuple[Any, str]:
    """What an action gives and '', or None and why it cannot be done."""
    try:
        return act(), ''
    except Exception as error:
        said = refusal(error)
        if said is None:
            traceback.print_exception(error)
        return None, said or FAULT


def _trouble(said: str) -> str:
    return f'<p class="trouble" role="alert">{escape(said)}</p>' if said else ''


def _note(said: str = '') -> gr.HTML:
    return gr.HTML(_trouble(said), visible=bool(said) or HIDDEN)


def _foot(questions: Questions) -> str:
    model = escape(questions.loaded.description['name'])
    if questions.shapes_only:
        return (f'Model: {model}, which knows drawn shapes only. For photographs start the page with '
                '<code>--model FOLDER</code>. Nothing leaves this machine.')
    return f'Model: {model}. Nothing leaves this machine but to those who open the page.'

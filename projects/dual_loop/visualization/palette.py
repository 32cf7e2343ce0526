"""The one palette: colours of outlines and what they mean, of pages in light and in dark, of tokens and of curves."""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

Colour = tuple[int, int, int]

# Apart for colour-blind readers too (after Okabe and Ito, 2008), brightened for photographs.
PROMPT_COLOUR: Colour = (255, 149, 0)
PREDICTED_COLOUR: Colour = (38, 132, 255)
TARGET_COLOUR: Colour = (0, 184, 124)


@dataclass(frozen=True)
class Outline:
    """What the outline of a colour stands for; ``name`` is the colour's, in words."""

    colour: Colour
    name: str
    meaning: str


#: The legend of every picture and page.
OUTLINES = (Outline(PROMPT_COLOUR, 'orange', 'the region that is described'),
            Outline(PREDICTED_COLOUR, 'blue', 'what the model found by words'),
            Outline(TARGET_COLOUR, 'green', 'what it should find'))

PAPER, INK, FAINT_INK = (255, 255, 255), (28, 32, 38), (98, 106, 117)
#: Ink and ground of a token by its kind: in pictures and on pages in light, on pages in dark.
CHIPS: dict[str, tuple[tuple[Colour, Colour], tuple[Colour, Colour]]] = {
    'text': ((INK, (241, 243, 245)), ((231, 234, 238), (38, 44, 52))),
    'tag': ((FAINT_INK, (241, 243, 245)), ((152, 161, 173), (38, 44, 52))),
    'image': (((60, 72, 88), (214, 222, 232)), ((203, 214, 228), (58, 70, 86))),
    'region': (((120, 66, 0), (255, 226, 184)), ((255, 215, 154), (90, 61, 18))),
    'slot': (((92, 50, 140), (234, 222, 250)), ((220, 200, 248), (70, 50, 95))),
    'seg': ((PAPER, (38, 112, 225)), (PAPER, (47, 111, 208))),
    'changed': (((122, 30, 0), (255, 220, 200)), ((255, 205, 178), (104, 44, 16))),
}
#: Of the curves of several runs, in light and in dark; each has a contrast of at least 3 to its paper.
CURVES: tuple[tuple[str, str], ...] = (
    ('#1769e0', '#6aa8ff'), ('#c2500a', '#ff9a5c'), ('#00805a', '#2fd39b'), ('#a8488a', '#e8a0cc'),
    ('#7a6a00', '#e0c84a'), ('#5b50c8', '#b0a8ff'))
#: Other colours of pages by their use, in light and in dark.
PAGE = {
    'paper': ('#f6f7f9', '#111418'), 'card': ('#fff', '#1a1e24'), 'ink': ('#1c2026', '#e7eaee'),
    'faint': ('#626a75', '#98a1ad'), 'line': ('#e1e5ea', '#2b313a'), 'accent': ('#1769e0', '#6aa8ff'),
    'warn': ('#9a5b00', '#ffc266'), 'supervised': ('#00a06c', '#2fd39b'),
}


def hexadecimal(colour: Colour) -> str:
    return '#{:02x}{:02x}{:02x}'.format(*colour)


def variables() -> str:
    """The palette as custom properties of CSS, for both colour schemes."""
    def declared(dark: int) -> str:
        pairs = [(name, colours[dark]) for name, colours in PAGE.items()]
        for kind, schemes in CHIPS.items():
            ink, ground = map(hexadecimal, schemes[dark])
            pairs += [(kind, ink), (f'{kind}-bg', ground)]
        pairs += [(f'curve{number}', colours[dark]) for number, colours in enumerate(CURVES)]
        return ' '.join(f'--{name}: {colour};' for name, colour in pairs)

    return (f':root {{ color-scheme: light dark; {declared(0)} }}\n'
            f'@media (prefers-color-scheme: dark) {{ :root {{ {declared(1)} }} }}\n')


def legend() -> str:
    """The meaning of outlines as HTML, for a page with the style of :mod:`.html_page`."""
    items = (f'<span class="chip"><i class="swatch" style="background:{hexadecimal(each.colour)}"></i>'
             f'{escape(each.name)}: {escape(each.meaning)}</span>' for each in OUTLINES)
    return f'<p class="legend">{"".join(items)}Outlines run round the objects; the objects stay as they are.</p>'


def outlines_of(colours: Iterable[Colour]) -> list[Outline]:
    """The entries of the legend for these colours, in its order; a colour that is not in it has none."""
    wanted = set(colours)
    return [each for each in OUTLINES if each.colour in wanted]

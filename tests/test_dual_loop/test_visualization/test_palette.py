"""Colours: one place, readable in light and in dark."""

import re

import pytest

from dual_loop.visualization.palette import CHIPS, CURVES, OUTLINES, PAGE, hexadecimal, legend, variables


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    colour = colour.lstrip('#')
    colour = ''.join(2 * digit for digit in colour) if len(colour) == 3 else colour
    channels = [int(colour[place:place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    low, high = sorted(map(luminance, (first, second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize('scheme', [0, 1], ids=['light', 'dark'])
def test_text_and_curves_stand_out(scheme):
    """4.5 for text and 3 for lines, as WCAG 2 asks for."""
    assert contrast('#000', '#fff') == pytest.approx(21)
    for ground in ('paper', 'card'):
        inks = ('ink', 'faint', 'warn', 'accent')
        assert all(contrast(PAGE[ink][scheme], PAGE[ground][scheme]) >= 4.5 for ink in inks)
        assert all(contrast(curve[scheme], PAGE[ground][scheme]) >= 3 for curve in CURVES)
    for kind, schemes in CHIPS.items():
        ink, ground = map(hexadecimal, schemes[scheme])
        assert contrast(ink, ground) >= 4.5, kind


def test_both_schemes_declare_the_same_names():
    light, dark = variables().split('@media (prefers-color-scheme: dark)')
    assert sorted(re.findall(r'--([\w-]+):', light)) == sorted(re.findall(r'--([\w-]+):', dark))


def test_the_legend_names_every_outline():
    assert all(hexadecimal(each.colour) in legend() and each.meaning in legend() for each in OUTLINES)


def test_no_other_module_has_colours_of_its_own(checkout):
    """Neither colours of CSS, nor triples of 0 to 255."""
    folder = checkout / 'projects/dual_loop'
    files = {*folder.glob('visualization/*.py'), folder / 'evaluation/page.py', folder / 'evaluation/photograph.py'}
    for file in files - {folder / 'visualization/palette.py'}:
        colour = r"#[0-9a-fA-F]{3}(?:[0-9a-fA-F]{3})?\b|\(\d{2,3}, \d{1,3}, \d{1,3}\)"
        assert not re.search(colour, file.read_text()), file

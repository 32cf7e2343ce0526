"""Text on pictures."""

from bisect import bisect_right
from functools import cache

from PIL import ImageFont


@cache
def text_font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break text into lines of at most ``width`` pixels at spaces; a word that is too long for a line is cut."""
    lines: list[str] = []
    line = ''
    for word in text.split():
        joined = f'{line} {word}' if line else word
        if font.getlength(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while font.getlength(word) > width:
            length = max(1, bisect_right(range(len(word)), width, key=lambda n: font.getlength(word[:n])) - 1)
            lines.append(word[:length])
            word = word[length:]
        line = word
    return lines + [line] if line else lines

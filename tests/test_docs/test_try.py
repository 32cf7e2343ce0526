"""The commands of the README and of docs/try.md on a picture, and what the README says that they print."""

import re
import shlex

import pytest

from dual_loop_command import describe, segment

COMMANDS = dict(segment=segment.COMMAND, describe=describe.COMMAND)
NUMBER = re.compile(r'\d+(?:\.\d+)?')


def blocks(text: str) -> list[str]:
    return re.findall(r'^```\w*\n(.*?)^```$', text, re.M | re.S)


@pytest.mark.parametrize('number', [0, 1])
def test_the_readme_shows_what_is_printed(checkout, tmp_path, monkeypatch, capsys, number):
    commands, *shown = [block for block in blocks((checkout / 'README.md').read_text()) if '/try/' in block
                        or 'dual-loop segment' in block]
    lines = [line for line in commands.splitlines() if line.startswith('dual-loop ')]
    assert all(line in (checkout / 'docs/try.md').read_text() for line in lines) and len(lines) == len(shown) == 2
    monkeypatch.chdir(tmp_path)
    _, name, photo, *arguments = shlex.split(lines[number])
    assert COMMANDS[name].main_of(name, [str(checkout / photo), *arguments]) == 0
    said = capsys.readouterr().out
    # The words as they are; numbers of pixels may differ a little from machine to machine.
    assert NUMBER.sub('N', said) == NUMBER.sub('N', shown[number])
    for measured, stated in zip(NUMBER.findall(said), NUMBER.findall(shown[number]), strict=True):
        assert float(measured) == pytest.approx(float(stated), rel=0.02, abs=1)

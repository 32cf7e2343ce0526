"""What comments and pages point to is in the repository, and files keep a readable length."""

import re
import subprocess

import pytest

FOLDERS = ['projects', 'tools', 'configs', 'tests', 'docs', 'README.md', 'README_zh-CN.md', 'CONTRIBUTING.md',
           'CHANGELOG.md', '.ci']
#: Written by version 0.1.0 and kept as they are.
KEPT = 'tests/past/'
#: These say what they look for.
OWN = 'tests/test_docs/test_pointers.py'
OUTSIDE = re.compile(r'reference/|design section|\bD[0-9]{1,2}\b|\bsection [0-9]')
ABSOLUTE = re.compile(r'''(?<![\w.}~/*-])/(?:home|root|opt|work|mnt|Users|scratch|workspace)/[\w.-]''')
POINTER = re.compile(r'docs/(\w+\.md), "([^"]+)"')
LINES = 400
#: Longer than that today. Files are taken off this list, not put on it.
LONG: list[str] = []


def unwrapped(text: str) -> str:
    """Comments and docstrings as one line each, so that a pointer may be broken anywhere."""
    return re.sub(r'\s*\n\s*(?:#:? ?)?', ' ', text)


@pytest.fixture(scope='module')
def texts(checkout) -> dict[str, str]:
    """Content of every text file that is or would be under version control, by path."""
    listed = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', *FOLDERS], cwd=checkout, text=True,
                            capture_output=True)
    if listed.returncode:
        pytest.skip('no git, or no repository')
    found = {}
    for name in listed.stdout.splitlines():
        file = checkout / name
        if name.startswith(KEPT) or name == OWN or not file.is_file():
            continue
        content = file.read_bytes()
        if b'\0' not in content[:8192]:
            found[name] = content.decode('utf-8', errors='ignore')
    assert len(found) > 200
    return found


def test_nothing_points_outside_the_repository(texts):
    found = {name: match[0] for name, text in texts.items() if (match := OUTSIDE.search(text))}
    assert not found


def test_sections_that_are_pointed_to_exist(checkout, texts):
    headings = {page.name: set(re.findall(r'^#+ (.*)$', page.read_text(encoding='utf-8'), re.M))
                for page in (checkout / 'docs').glob('*.md')}
    pointers = [(name, page, heading) for name, text in texts.items()
                for page, heading in POINTER.findall(unwrapped(text))]
    assert len(pointers) > 5
    assert not [each for each in pointers if each[2] not in headings.get(each[1], ())]


def test_decisions_are_dated(checkout):
    sections = re.split(r'^### .*$', (checkout / 'docs/decisions.md').read_text(encoding='utf-8'), flags=re.M)[1:]
    assert len(sections) > 15
    assert all(re.match(r'\s*20\d\d-\d\d-\d\d\. ', section) for section in sections)


def test_no_path_of_a_machine(texts):
    assert not {name: match[0] for name, text in texts.items() if (match := ABSOLUTE.search(text))}


def test_files_have_a_readable_length(texts):
    long = [name for name, text in texts.items() if re.match(r'(projects|tools|tests)/.*\.(py|sh)$', name)
            and len(text.splitlines()) > LINES]
    assert sorted(long) == sorted(LONG), 'too long, or no longer so and to be taken off the list'


def test_pointers_are_found_across_lines():
    assert POINTER.findall(unwrapped('    # see docs/a.md,\n    # "One\n    # two" here')) == [('a.md', 'One two')]
    assert OUTSIDE.search('left (D6).') and not OUTSIDE.search('(B, k, D) rows, 3D')
    assert ABSOLUTE.search("'/home/me/x'") and not ABSOLUTE.search('tmp_path/data/x and $root/work/x')

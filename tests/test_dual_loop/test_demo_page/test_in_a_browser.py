"""The page of ``dual-loop demo`` in a real browser without a window, clicked through as a user would."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip('gradio', reason='requirements/demo.txt is not installed')
sync_api = pytest.importorskip('playwright.sync_api', reason='playwright of requirements/dev.txt is not installed')
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
if CHROMIUM is None:
    pytest.skip('no chromium is installed (on Debian: apt-get install chromium)', allow_module_level=True)

CHECKOUT = Path(__file__).resolve().parents[3]
PATIENCE = 60_000  # milliseconds, for a machine that is busy
LAYOUTS = dict(light=dict(viewport=dict(width=1280, height=900)),
               dark=dict(viewport=dict(width=1280, height=900), color_scheme='dark'),
               phone=dict(viewport=dict(width=390, height=844), has_touch=True, is_mobile=True))
#: What is seen of the page and ends to the right of its window.
BEYOND = """width => [...document.querySelectorAll('gradio-app *')].filter(each => {
    const box = each.getBoundingClientRect();
    return each.checkVisibility() && box.width && box.right > width + 1;
}).map(each => each.outerHTML)"""


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    """Of the command as a process of its own, which ends cleanly and leaves no file behind."""
    folder = tmp_path_factory.mktemp('temporary')
    process = subprocess.Popen(
        [sys.executable, '-m', 'dual_loop_command', 'demo', '--port', '0'], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE, env=os.environ | dict(PYTHONPATH=str(CHECKOUT / 'projects'), TMPDIR=str(folder)))
    try:
        line = process.stdout.readline().strip()
        assert line.startswith('http://127.0.0.1:'), process.stderr.read()
        yield line
        process.send_signal(signal.SIGINT)
        shown, said = process.communicate(timeout=60)
        assert said == 'dual-loop demo: interrupted by SIGINT\n' and not shown
        assert process.returncode == 128 + signal.SIGINT
        assert not list(folder.glob('dual_loop_demo_*')), 'pictures of users are deleted'
    finally:
        process.kill()


@pytest.fixture(scope='module')
def browser():
    with sync_api.sync_playwright() as playwright:
        options = ['--no-sandbox'] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*options, '--disable-dev-shm-usage'])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Opens the page as a new user; whatever the user does, nothing is asked of another machine and nothing fails."""
    contexts, asked, complaints = [], [], []

    def open_page(**options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on('request', lambda request: asked.append(request.url))
        page.on('pageerror', lambda error: complaints.append(str(error)))
        page.on('console', lambda message: complaints.append(message.text) if message.type == 'error' else None)
        page.on('response', lambda response: complaints.append(response.url) if response.status >= 400 else None)
        page.goto(address)
        page.locator('#find').wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert asked and not [url for url in asked if not url.startswith((f'{address}/', 'data:', f'blob:{address}'))]
    assert not complaints


def open_tab(page, name):
    page.get_by_role('tab', name=name, exact=True).click()


def click(page, picture, x, y):
    """At a share of the width and the height of a picture, which changes by it."""
    image = page.locator(f'#{picture} img')
    box, before = at_rest(page, image), image.get_attribute('src')
    # The element is as wide as its frame, and the picture in its middle keeps its shape.
    size = image.evaluate('image => [image.naturalWidth, image.naturalHeight]')
    scale = min(box['width'] / size[0], box['height'] / size[1])
    left, top = (box[side] / 2 - length * scale / 2 for side, length in zip(('width', 'height'), size))
    image.click(position=dict(x=left + x * size[0] * scale, y=top + y * size[1] * scale))
    changes(page, picture, before)


def at_rest(page, image):
    """Where a picture is, once the page has its layout: a click beside the picture would mean nothing."""
    box = None
    while (now := image.bounding_box()) != box:
        box = now
        page.wait_for_timeout(200)
    return box


def changes(page, picture, before):
    sync_api.expect(page.locator(f'#{picture} img')).not_to_have_attribute('src', before, timeout=PATIENCE)


def shows(page, name, text):
    sync_api.expect(page.locator(f'#{name}')).to_be_visible(timeout=PATIENCE)
    sync_api.expect(page.locator(f'#{name}')).to_contain_text(text, timeout=PATIENCE)


def upload(page, button, path):
    with page.expect_file_chooser() as chooser:
        page.locator(f'#{button}').click()
    chooser.value.set_files(path)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_all_three_tabs(visit, layout):
    page = visit(**LAYOUTS[layout])

    def fits():
        width = page.viewport_size['width']
        assert page.evaluate('[document.documentElement.scrollWidth, innerWidth]') == [width, width], 'no scrolling'
        assert page.evaluate(BEYOND, width) == [], 'nothing is cut off'

    fits()
    background = page.evaluate('getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).map(Number)')
    assert (sum(background[:3]) < 200) == (layout == 'dark')
    marking = page.locator('#marking')
    sync_api.expect(marking).to_be_hidden()
    page.locator('#find').click()
    shows(page, 'found', 'Found: 48')
    shows(page, 'found-below1', 'the red ring')
    page.locator('#found-picture1 img').wait_for()
    fits()
    open_tab(page, 'Describe')
    sync_api.expect(marking).to_be_visible(timeout=PATIENCE)
    page.locator('#describe').click()
    shows(page, 'described', 'A large red ring with black stripes.')
    shows(page, 'described', "the object's own mask")
    fits()
    open_tab(page, 'The loop')
    page.locator('#go').click()
    shows(page, 'went', 'A large red ring with black stripes.')
    shows(page, 'went-below1', 'This picture: found again, IoU 0.9')
    shows(page, 'went-below2', 'Second picture: found again, IoU 0.9')
    page.locator('#went-picture2 img').wait_for()
    fits()


def test_another_example_and_other_words(visit):
    page = visit()
    before = page.locator('#picture img').get_attribute('src')
    page.locator('#examples button').nth(1).click()
    changes(page, 'picture', before)
    assert page.get_by_label('What shall be found?').input_value() == 'the orange heart'
    page.get_by_label('What shall be found?').fill('le cœur <b>jaune</b>')
    page.keyboard.press('Enter')
    shows(page, 'found', 'never read “le”, “cœur”, “b”, “jaune”')
    page.get_by_label('What shall be found?').fill('  ')
    page.locator('#find').click()
    shows(page, 'found', 'Write what to find, such as “the red ring”.')
    open_tab(page, 'The loop')
    page.locator('#go').click()
    shows(page, 'went-below2', 'Second picture: found again')
    before = page.locator('#picture img').get_attribute('src')
    page.locator('#examples button').nth(0).click()  # answers about another picture are gone
    changes(page, 'picture', before)
    sync_api.expect(page.locator('#went')).to_have_text('', timeout=PATIENCE)
    sync_api.expect(page.locator('#went-picture2 img')).to_be_hidden()


def test_regions_by_clicks(visit):
    page = visit()
    click(page, 'picture', 0.28, 0.58)  # in the tab of words: it leads to the other one
    sync_api.expect(page.get_by_role('tab', name='Describe', exact=True)).to_have_attribute('aria-selected', 'true')
    page.locator('#describe').click()
    shows(page, 'described', 'Region: a disc of 25 pixels round the point')
    page.get_by_label('Box: two corners').check()
    click(page, 'picture', 0.1, 0.4)
    page.locator('#describe').click()
    shows(page, 'described', 'The box is not complete: click 1 more time.')
    click(page, 'picture', 0.5, 0.75)
    page.locator('#describe').click()
    shows(page, 'described', 'Region: the box itself, 6')  # of 210 x 206 pixels: 0.4 x 0.35
    page.get_by_label('Outline: click round it').check()
    for place in ((0.2, 0.4), (0.5, 0.6), (0.2, 0.8)):
        click(page, 'picture', *place)
    page.locator('#describe').click()
    shows(page, 'described', 'Region: the outline itself, 2')  # 0.3 x 0.4 / 2
    open_tab(page, 'The loop')
    page.get_by_label('Point').check()
    click(page, 'picture', 0.28, 0.58)
    click(page, 'picture2', 0.9, 0.9)
    page.locator('#go').click()
    shows(page, 'went-below2', 'Second picture: found again, IoU 0.')
    before = page.locator('#picture img').get_attribute('src')
    page.locator('#clear').click()
    changes(page, 'picture', before)
    page.locator('#go').click()
    shows(page, 'went', 'No region is marked yet')


def test_pictures_of_ones_own(visit, posed, tmp_path):
    pixels = posed[2][0].photograph.image.permute(1, 2, 0).numpy()
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / 'note.png').write_text('no picture')
    Image.new('1', (10_000, 6000)).save(tmp_path / 'huge.png')
    Image.fromarray(pixels).convert('CMYK').save(tmp_path / 'print.jpg', quality=95)
    Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90).save(tmp_path / 'turned.png', exif=exif)
    Image.fromarray(pixels).save(tmp_path / 'moves.gif', save_all=True,
                                 append_images=[Image.fromarray(pixels[::-1].copy())])
    Image.new('L', (1, 1)).save(tmp_path / 'dot.png')
    page = visit()
    upload(page, 'own', tmp_path / 'note.png')
    shows(page, 'note', 'note.png is no picture that can be read')
    upload(page, 'own', tmp_path / 'huge.png')
    shows(page, 'note', 'huge.png has more than 50 million pixels')
    phrase = page.get_by_label('What shall be found?')
    for name in ('print.jpg', 'turned.png', 'moves.gif'):
        before = page.locator('#picture img').get_attribute('src')
        upload(page, 'own', tmp_path / name)
        changes(page, 'picture', before)
        size = page.locator('#picture img').evaluate('image => image.decode().then(() => image.naturalWidth)')
        assert size == pixels.shape[1], 'as it is seen, turned'
        sync_api.expect(phrase).to_have_value('')
        phrase.fill('the checked cyan crescent')
        page.locator('#find').click()
        shows(page, 'found', 'Found: ')
    open_tab(page, 'The loop')
    page.locator('#go').click()
    shows(page, 'went', 'No region is marked yet')
    click(page, 'picture', 0.3, 0.25)
    page.locator('#go').click()
    shows(page, 'went', 'There is no second picture')
    upload(page, 'own2', tmp_path / 'dot.png')
    page.locator('#picture2 img').wait_for()
    page.locator('#go').click()
    page.locator('#went-picture2 img').wait_for()
    before = page.locator('#picture img').get_attribute('src')
    upload(page, 'own', tmp_path / 'dot.png')
    changes(page, 'picture', before)
    open_tab(page, 'Find')
    phrase.fill('a ring')
    page.locator('#find').click()
    shows(page, 'found', 'The model answered')


def test_two_users_at_once(visit):
    """Each has a picture and a region of their own."""
    one, other = visit(), visit()
    before = other.locator('#picture img').get_attribute('src')
    other.locator('#examples button').nth(5).click()
    changes(other, 'picture', before)
    for page in (one, other):
        open_tab(page, 'The loop')
    for page in (one, other):
        page.locator('#go').click()
    shows(one, 'went', 'A large red ring with black stripes.')
    shows(other, 'went', 'A large plain cyan square.')

"""The command line of tools/benchmark_data.py, on pictures too small to say anything about time."""

import re
import subprocess
import sys

import numpy as np
from PIL import Image

TINY = ['--size', '96', '130', '--images', '2', '--repeats', '1', '--image-size', '28', '--grounding-size', '40',
        '--workers', '1', '--samples', '6']


def table_below(title: str, output: str) -> dict[str, list[list[float]]]:
    """The rows up to the next empty line: name to the numbers of each row of that name."""
    rows = {}
    for name, numbers in re.findall(r'^(.{26})((?: +[\d.e+-]+)+)$', output.split(title)[1].split('\n\n')[0], re.M):
        rows.setdefault(name.strip(), []).append([float(each) for each in numbers.split()])
    return rows


def run(checkout, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(checkout / 'tools' / 'benchmark_data.py'), 'loader', *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_prints_times_differences_parts_and_throughput(checkout, tmp_path):
    pixels = np.random.default_rng(0).integers(60, 200, (60, 50, 3), dtype=np.uint8)
    photograph = Image.fromarray(pixels).resize((75, 100))
    exif = photograph.getexif()
    exif[0x0112] = 6
    photograph.save(tmp_path / 'turned.jpg', exif=exif)
    done = run(checkout, *TINY, '--photos', str(tmp_path))
    assert done.returncode == 0, done.stderr

    made = table_below('pictures (made, 96 x 130', done.stdout)
    photos = table_below('pictures (photographs, 1 files', done.stdout)
    assert made.keys() == {'plain', 'plain, bilinear 40', 'ours', 'decoded at half scale', 'ours against plain'}
    assert photos.keys() == made.keys() - {'decoded at half scale'}  # 75 rows are not twice 40
    for table in (made, photos):
        time, *differences = table['ours']
        assert 0 < time[0] <= time[1] and time[2] == 1
        assert [row[0] for row in differences] == [28, 40]
        # Rounding to whole levels alone makes a difference of about one half.
        assert all(0.4 < row[1] < 3 for row in differences)
        assert all(row[1] <= 1 for row in table['ours against plain'])
    assert all(row[1] > 3 for row in made['decoded at half scale'][1:])

    parts = table_below('SA-1B sample', done.stdout)
    assert len(parts) == 9 and {'decode the picture', 'region grid', 'target mask', 'whole sample'} <= parts.keys()

    workers, speed, megabytes = map(float, done.stdout.splitlines()[-1].split())
    picture, masks = 3 * 28**2 * 4 + 3 * 40**2, 2 * 40**2 + 1
    assert workers == 1 and speed > 0
    assert picture / 2 + masks < megabytes * 1e6 + 5e3 and megabytes * 1e6 - 5e3 < picture + masks


def test_a_folder_without_photographs_is_one_clear_line(checkout, tmp_path):
    done = run(checkout, *TINY, '--photos', str(tmp_path))
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == f'benchmark_data: {tmp_path} (from --photos) has no .jpg file\n'

import os
import struct

import cv2
import numpy as np
import pytest
import torch

from dual_loop.datasets import BadSample
from dual_loop.datasets.videos import read_frames

B_FRAMES = {'OPENCV_FFMPEG_WRITER_OPTIONS': 'bf;2'}
KINDS = [('mp4', 'mp4v', {}), ('mp4', 'mp2v', B_FRAMES), ('mp4', 'vp09', {}), ('mp4', 'MJPG', {}), ('avi', 'XVID', {}),
         ('avi', 'mp2v', B_FRAMES), ('mkv', 'VP80', {}), ('mkv', 'mp2v', B_FRAMES), ('mkv', 'FFV1', {}),
         ('mpg', 'MPG1', {})]


def read_all(path):
    """Every frame from the first to the last, by OpenCV alone."""
    video = cv2.VideoCapture(str(path))
    frames = []
    while True:
        read, pixels = video.read()
        if not read:
            return frames
        frames.append(torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1))


def check_every_frame(path, rng, count):
    expected = read_all(path)
    assert len(expected) == count
    for pair in rng.permutation(count).reshape(-1, 2).tolist():
        for number, frame in zip(pair, read_frames(path, pair)):
            assert torch.equal(frame, expected[number]), f'frame {number} of the pair {pair}'


@pytest.mark.parametrize('ending, codec, options', KINDS)
def test_every_frame_is_the_wanted_one(tmp_path, monkeypatch, write_video, shown_number, ending, codec, options):
    for name, value in options.items():
        monkeypatch.setenv(name, value)
    path = write_video(tmp_path / f'a.{ending}', 100, codec=codec)
    check_every_frame(path, np.random.default_rng(0), 100)
    for number in (99, 0, 57):
        frame, = read_frames(path, [number])
        assert shown_number(frame) == number and frame.shape == (3, 48, 64) and frame.dtype == torch.uint8


def test_frames_out_of_order_in_the_file(tmp_path, monkeypatch, write_video):
    monkeypatch.setenv(*next(iter(B_FRAMES.items())))
    packets = cv2.VideoCapture(str(write_video(tmp_path / 'a.mp4', 30, codec='mp2v')))
    packets.set(cv2.CAP_PROP_FORMAT, -1)
    times = []
    while packets.grab():
        times.append(packets.get(cv2.CAP_PROP_POS_MSEC))
    assert times != sorted(times), 'this OpenCV writes no B-frames: the cases above prove less than they say'


@pytest.mark.parametrize('codec, options', [('mp4v', {}), ('mp2v', B_FRAMES)])
def test_jumps_save_work(tmp_path, monkeypatch, write_video, shown_number, codec, options):
    for name, value in options.items():
        monkeypatch.setenv(name, value)
    path = write_video(tmp_path / 'a.mp4', 100, codec=codec)
    grabbed = []

    class Counting:
        def __init__(self, *arguments):
            self.video = video_capture(*arguments)

        def grab(self):
            grabbed.append(self.video.get(cv2.CAP_PROP_FORMAT) == -1)
            return self.video.grab()

        def __getattr__(self, name):
            return getattr(self.video, name)

    video_capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, 'VideoCapture', Counting)
    assert [shown_number(frame) for frame in read_frames(path, [5, 90])] == [5, 90]
    assert grabbed.count(True) == 101 and grabbed.count(False) == 7, 'frames 0 to 5 and 90, in one try'


def test_order_and_repetition_are_kept(tmp_path, write_video, shown_number):
    frames = read_frames(write_video(tmp_path / 'a.mp4', 40), [30, 3, 30, 29])
    assert [shown_number(frame) for frame in frames] == [30, 3, 30, 29]


def test_colours_are_rgb(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / 'a.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 24, (64, 48))
    writer.write(np.full((48, 64, 3), (10, 100, 220), np.uint8))
    writer.release()
    frame, = read_frames(tmp_path / 'a.avi', [0])
    assert [round(float(channel.float().mean()) / 10) for channel in frame] == [22, 10, 1]


def patch(path, box, offset, layout, *values):
    """Overwrite numbers in a box of an MP4 file; ``offset`` counts from behind its name."""
    data = bytearray(path.read_bytes())
    start = data.index(box) + 4 + offset
    data[start:start + struct.calcsize(layout)] = struct.pack(layout, *values)
    path.write_bytes(data)


def slow_down(path, count, ticks):
    """Show the second half of an MP4 file's frames three times as long."""
    data = bytearray(path.read_bytes())
    start = data.index(b'stts') + 8
    data[start:start + 12] = struct.pack('>5I', 2, count // 2, ticks, count - count // 2, 3 * ticks)
    for box in (b'moov', b'trak', b'mdia', b'minf', b'stbl', b'stts'):
        place = data.index(box) - 4
        data[place:place + 4] = struct.pack('>I', *(size + 8 for size in struct.unpack_from('>I', data, place)))
    path.write_bytes(data)
    patch(path, b'elst', 8, '>I', 10**6)


def test_uneven_speed(tmp_path, write_video):
    path = write_video(tmp_path / 'a.mp4', 60)
    slow_down(path, 60, 512)
    jumper = cv2.VideoCapture(str(path))
    jumper.set(cv2.CAP_PROP_POS_FRAMES, 22)
    assert not torch.equal(torch.from_numpy(jumper.read()[1][..., ::-1].copy()).permute(2, 0, 1), read_all(path)[22]), \
        'a jump that nobody checks ends elsewhere'
    check_every_frame(path, np.random.default_rng(0), 60)


def test_hidden_frames_at_the_start_do_not_count(tmp_path, write_video, shown_number):
    path = write_video(tmp_path / 'a.mp4', 60)
    patch(path, b'elst', 12, '>i', 20 * 512)
    assert shown_number(read_frames(path, [0])[0]) == 20
    check_every_frame(path, np.random.default_rng(0), 40)


def test_rotation_is_applied(tmp_path, write_video):
    path = write_video(tmp_path / 'a.mp4', 30)
    upright = read_frames(path, [25])[0]
    patch(path, b'tkhd', 40, '>9i', 0, 65536, 0, -65536, 0, 0, 48 << 16, 0, 1 << 30)
    turned, = read_frames(path, [25])
    assert turned.shape == (3, 64, 48) and torch.equal(turned, upright.rot90(-1, (1, 2)))


@pytest.mark.parametrize('content, reason', [(None, 'the video is missing'), (b'', 'cannot be opened'),
                                             (b'no video' * 99, 'cannot be opened'), (0.5, 'cannot be opened')])
def test_files_that_are_no_videos(tmp_path, write_video, content, reason):
    path = tmp_path / 'a.mp4'
    if isinstance(content, float):
        whole = write_video(path, 30).read_bytes()
        content = whole[:int(content * len(whole))]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadSample, match=reason) as caught:
        read_frames(path, [0])
    assert caught.value.path == path


@pytest.mark.parametrize('options', [{}, B_FRAMES])
def test_frames_from_a_hole_to_the_next_key_frame_are_refused(tmp_path, monkeypatch, rng_video, options):
    """The decoder fills what is missing with its neighbours and says nothing."""
    for name, value in options.items():
        monkeypatch.setenv(name, value)
    path = rng_video(tmp_path / 'a.mp4', 40)
    expected, whole = read_all(path), path.read_bytes()
    start, stop = whole.index(b'mdat') + 4, whole.index(b'moov')
    for place in np.random.default_rng(0).integers(start, stop - 2000, 12):
        path.write_bytes(whole[:place] + bytes(2000) + whole[place + 2000:])
        refused = []
        for number in range(0, 40, 3):
            try:
                frame, = read_frames(path, [number])
                assert torch.equal(frame, expected[number])
            except BadSample as error:
                assert error.path == path
                refused.append(number)
        assert 0 < len(refused) < 14, 'frames before the hole and behind the next key frame are whole'


@pytest.fixture
def rng_video():
    def write(path, count):
        ground = np.random.default_rng(0).integers(256, size=(120, 160, 3), dtype=np.uint8)
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*'mp4v'), 24, (160, 120))
        for number in range(count):
            writer.write(np.roll(ground, 3 * number, 1))
        writer.release()
        return path

    return write


def test_missing_frames_are_named(tmp_path, write_video, shown_number):
    path = write_video(tmp_path / 'a.mp4', 30)
    with pytest.raises(BadSample, match='no frame 30') as caught:
        read_frames(path, [3, 30])
    assert caught.value.path == path
    # A file that needs no table at its end can be read up to where it was cut off.
    path = write_video(tmp_path / 'b.mkv', 100, codec='FFV1')
    os.truncate(path, path.stat().st_size * 2 // 3)
    left = len(read_all(path))
    assert 10 < left < 90 and shown_number(read_frames(path, [left - 1])[0]) == left - 1
    with pytest.raises(BadSample, match=f'no frame {left}, or is broken before it'):
        read_frames(path, [5, left])

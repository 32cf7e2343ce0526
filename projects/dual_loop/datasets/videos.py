"""Single frames of video files, by their number."""

from bisect import bisect
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from .completeness import HOLE
from .quarantine import BadSample

_SAME_TIME = 1e-3  # milliseconds
# Zeros are the start of a new piece in these, so that within one there are never more than three bytes of them.
_WITHOUT_ZEROS = (b'avc1', b'h264', b'H264', b'hvc1', b'hev1', b'hevc', b'mp4v', b'FMP4')


def read_frames(path: str | Path, numbers: Sequence[int]) -> list[torch.Tensor]:
    """Decode some frames of a video the way a viewer shows them (rotation applied).

    Frame n is the one after n others when the video is decoded from its start. The reader jumps where a key frame lets
    it skip something; that counts only if every frame then bears the time stamp that is the n-th of all. Else the video
    is decoded from its start.

    Args:
        path: any video that OpenCV's FFmpeg reads.
        numbers: of the frames, from 0, in any order.

    Returns:
        (3, H, W) uint8 RGB for each number.

    Raises:
        BadSample: missing, not a video, without one of the frames, or with a part that has not arrived before it.
    """
    wanted = sorted(set(numbers))
    times, keys, holes = _timetable(path)
    for number in wanted:
        group = [*keys[max(0, bisect(keys, number) - 1):][:2], len(times), len(times)]
        if any(group[0] <= hole < group[1] for hole in holes):
            raise BadSample(f'has not fully arrived: zeros in what frame {number} is made from', path)
    try:
        frames = _decode(path, wanted, times, keys)
    except BadSample:
        frames = _decode(path, wanted)
    return [frames[number] for number in numbers]


def _timetable(path: str | Path) -> tuple[np.ndarray, list[int], list[int]]:
    """Time stamps of all frames in milliseconds, ascending, and the numbers of the key frames and of those with a hole.

    Nothing is decoded. A hole is a run of zeros in a stream that never has one.
    """
    packets = _open(path)
    may_have_holes = int(packets.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, 'little') in _WITHOUT_ZEROS
    packets.set(cv2.CAP_PROP_FORMAT, -1)
    times, is_key, is_hole = [], [], []
    while packets.grab():
        times.append(packets.get(cv2.CAP_PROP_POS_MSEC))
        is_key.append(packets.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME) > 0)
        is_hole.append(may_have_holes and HOLE in packets.retrieve()[1].tobytes())
    order = np.argsort(times, kind='stable')
    keys, holes = (np.flatnonzero(np.array(each)[order]).tolist() for each in (is_key, is_hole))
    return np.array(times)[order], keys, holes


def _decode(path: str | Path, wanted: list[int], times: np.ndarray | None = None,
            keys: Sequence[int] = ()) -> dict[int, torch.Tensor]:
    """The frames with these ascending numbers, with jumps over the key frames ``keys``, checked against ``times``."""
    video = _open(path)
    frames, position = {}, 0
    for number in wanted:
        if bisect(keys, number) > bisect(keys, position):
            video.set(cv2.CAP_PROP_POS_FRAMES, number)
            position = number
        while position <= number:
            if not video.grab():
                raise BadSample(f'has no frame {number}, or is broken before it', path)
            position += 1
        shown = video.get(cv2.CAP_PROP_POS_MSEC)
        if times is not None and np.flatnonzero(abs(times - shown) < _SAME_TIME).tolist() != [number]:
            raise BadSample(f'the frame at {shown} ms is not the only one with number {number}', path)
        pixels = video.retrieve()[1]
        frames[number] = torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)
    return frames


def _open(path: str | Path) -> cv2.VideoCapture:
    if not Path(path).is_file():
        raise BadSample('the video is missing', path)
    # One thread: the workers of a data loader already use all cores.
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not video.isOpened():
        raise BadSample('cannot be opened as a video: cut off, broken or of an unknown kind', path)
    return video

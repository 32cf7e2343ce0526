"""Annotation files of the SA-V release: ``masklet[t][k]`` is the run-length code of object k at annotated frame t."""

from pathlib import Path
from typing import Any

import numpy as np

from .images import read_bytes
from .json_files import RepeatedKeys, parse_json
from .masks import run_lengths
from .quarantine import BadSample

KINDS = dict(manual=('manual',), auto=('auto',), both=('manual', 'auto'))
#: Masks stand at every fourth frame: 6 per second of a video with 24 frames per second.
FRAMES_PER_MASK = 4
_LONGEST_RUN = 7  # characters


def read_masklets(path: Path) -> list[list[Any]]:
    """The run-length codes of an annotation file, by annotated frame and object; None or empty where not visible.

    The codes themselves are not looked at, see ``code_at``.

    Raises:
        BadSample: missing, empty, not such a file, or that of another video.
    """
    data = read_bytes(path)
    try:
        content = parse_json(data)
    except ValueError as error:
        raise BadSample(f'is not a JSON file: {error}', path) from error
    if isinstance(content, RepeatedKeys):
        raise BadSample(f'has the key {min(content.repeated)!r} twice', path)
    masklets = content.get('masklet') if isinstance(content, dict) else None
    if not isinstance(masklets, list) or not all(isinstance(codes, list) for codes in masklets):
        raise BadSample('has no masklet, a list of annotated frames with a list of run-length codes each', path)
    if len({len(codes) for codes in masklets}) > 1:
        raise BadSample('has another number of objects from one annotated frame to the next', path)
    video = content.get('video_id')
    if isinstance(video, str) and video != path.stem.rpartition('_')[0]:
        raise BadSample(f'is the annotation file of the video {video!r:.80} by its content, of '
                        f'{path.stem.rpartition("_")[0]} by its name', path)
    return masklets


def code_at(masklets: list[list[Any]], frame: int, number: int, path: Path) -> dict | None:
    """The run-length code of object ``number`` at an annotated frame; None where it is not visible.

    Raises:
        BadSample: it is none.
    """
    code = masklets[frame][number]
    if not code:
        return None
    if not _is_code(code):
        raise BadSample('has a mask that is not {size: [height, width], counts}: that of object '
                        f'{number} at annotated frame {frame}', path)
    return code


def visible_frames(masklets: list[list[Any]], number: int, path: Path) -> np.ndarray:
    """(annotated frames,) bool, where object ``number`` has a pixel. Raises ``BadSample``."""
    return np.array([_has_pixels(code_at(masklets, frame, number, path), path) for frame in range(len(masklets))])


def _is_code(code: object) -> bool:
    size = code.get('size') if type(code) is dict and 'counts' in code else None  # a key twice makes another type
    return isinstance(size, list) and len(size) == 2 and all(type(side) is int and 0 < side < 2**16 for side in size)


def _has_pixels(code: dict | None, path: Path) -> bool:
    if not code or not code['counts']:
        return False
    # More text than one run can take means a second run, inside the object.
    if isinstance(code['counts'], (str, bytes)) and len(code['counts']) > _LONGEST_RUN:
        return True
    return bool(run_lengths(code['counts'], path)[1::2].any())


def pairs(visible: np.ndarray, gap: tuple[int, int]) -> np.ndarray:
    """All ordered pairs of visible annotated frames that are ``gap`` (min, max) apart: (pairs, 2) int64."""
    frames = np.flatnonzero(visible)
    distance = abs(frames[:, None] - frames)
    return frames[np.argwhere((gap[0] <= distance) & (distance <= gap[1]))]


def to_text(visible: np.ndarray) -> str:
    """A bitmap in hexadecimal digits, for a column of the index."""
    return np.packbits(visible).tobytes().hex()


def from_text(text: str) -> np.ndarray:
    """The bitmap of ``to_text``, with up to seven more frames, in which the object is not visible."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)).astype(bool)

"""Where relative paths of a config point to, and what makes files last."""

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def resolve(path: str | Path) -> Path:
    """Absolute paths stay; relative ones are read against the checkout, so that a config works from any folder."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else CHECKOUT / path


def keep_on_disk(path: Path) -> None:
    """Return when a file or the entries of a folder are on the disk itself, so that a power cut cannot take them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

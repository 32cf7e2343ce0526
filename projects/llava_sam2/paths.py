"""Where relative paths of a config point to."""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def resolve(path: str | Path) -> Path:
    """Absolute paths stay; relative ones are read against the checkout, so that a config works from any folder."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else CHECKOUT / path

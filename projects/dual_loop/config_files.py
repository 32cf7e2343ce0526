"""Config files and ``--cfg-options`` as every command reads them."""

import traceback
import warnings
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.config.utils import ConfigParsingError

from dual_loop.refusals import refusal


def read_config(path: str | Path, options: Sequence[str] = ()) -> Config:
    """A config file with settings changed.

    Args:
        path: of the file.
        options: each ``KEY=VALUE``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no config, or a setting cannot be changed so.
    """
    path = Path(path)
    if not path.is_file():
        kind = 'is a folder, not a config file' if path.is_dir() else 'does not exist'
        raise FileNotFoundError(f'there is no config file {path}: it {kind} (looked from {Path.cwd()})')
    if path.suffix != '.py':
        raise ValueError(f'{path} is no config: configs are Python files (.py), such as those in configs/')
    try:
        with warnings.catch_warnings():  # mmengine asks pkg_resources where the package of a base config lies
            warnings.filterwarnings('ignore', 'pkg_resources is deprecated')
            cfg = Config.fromfile(path)
    except (SyntaxError, UnicodeDecodeError, ConfigParsingError) as error:
        raise ValueError(f'{path} is no config: {" ".join(str(error).split())}') from error
    except Exception as error:
        if refusal(error):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(f'{path} cannot be read: {type(error).__name__} in {place.filename}, line {place.lineno}: '
                         f'{" ".join(str(error).split())}') from error
    for option in options:  # one by one, so that an error names its own
        try:
            cfg.merge_from_dict(_parsed(option))
        except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f'--cfg-options {option}: {" ".join(str(error).split())}') from error
    return cfg


def _parsed(option: str) -> dict:
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', option]).cfg_options

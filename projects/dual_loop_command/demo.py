"""``dual-loop demo``."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from importlib.util import find_spec

from dual_loop_command.arguments import add_model
from dual_loop_command.command import Command
from llava_sam2.paths import CHECKOUT

ABOUT = """Open a page in which words find objects and regions get words.

    {command}
    {command} --model pretrained/Sa2VA-4B --port 8000

Three tabs: a phrase and its mask, a region (by clicks) and its description, and the loop from a region to words and
back, in the same picture and in a second one. The page is for a browser on this machine; --host 0.0.0.0 opens it to all
that reach the machine, without a password. Needs the packages of requirements/demo.txt. Ctrl-C ends it.
"""
#: What requirements/demo.txt installs.
PACKAGES = ('gradio', 'gradio_client', 'hf_gradio', 'fastapi', 'starlette', 'uvicorn', 'brotli', 'groovy', 'multipart',
            'opentelemetry', 'orjson', 'pydub', 'pytz', 'safehttpx', 'semantic_version', 'tomlkit')
INSTALL = f'python -m pip install --no-deps -r {CHECKOUT / "requirements/demo.txt"}'


def port(text: str) -> int:
    """A port, as an argument."""
    if not text.isdecimal() or int(text) > 65535:
        raise ArgumentTypeError(f'{text!r} is no port from 0 (any that is free) to 65535')
    return int(text)


def add_arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument('--host', default='127.0.0.1', metavar='ADDRESS', help='default: %(default)s, for this machine')
    parser.add_argument('--port', type=port, default=7860, metavar='N', help='default: %(default)s; 0 for any free one')


def act(args: Namespace) -> int:
    if absent := [name for name in PACKAGES if find_spec(name) is None]:
        raise ImportError(f'{", ".join(absent)} {"is" if len(absent) == 1 else "are"} not installed: run `{INSTALL}`')
    from dual_loop.demo_page.questions import Questions
    from dual_loop.demo_page.scenes import draw_examples
    from dual_loop.demo_page.server import bound, serve
    from dual_loop.evaluation.photograph import answering_model

    with bound(args.host, args.port) as listener:
        loaded = answering_model(args.model, args.dtype)
        serve(Questions(loaded, args.max_new_tokens, args.model is None), draw_examples(), listener)
    return 0


COMMAND = Command('demo', ABOUT, add_arguments, act)

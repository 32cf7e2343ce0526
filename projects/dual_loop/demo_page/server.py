"""Serves the page: on an address that is known to be free, from this machine alone, and without telemetry."""

import os
import re
import socket
import tempfile
import warnings
from collections.abc import Sequence

from .questions import Questions
from .scenes import Example

#: Of an uploaded picture.
MAX_FILE = '64mb'
#: A page may load from the server alone; styles and scripts of gradio's stand in the page itself.
POLICY = ("default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
          "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'")
_FOREIGN = re.compile(rb'<script\s[^>]*src="https?://[^>]*>\s*</script>|<link\s[^>]*href="https?://[^>]*>', re.S)


def bound(host: str, port: int) -> socket.socket:
    """A socket for the address.

    Raises:
        OSError: another program has the port, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise OSError(f'--host {host} is no address of a machine ({error.strerror})') from error
    result = socket.socket(family, kind, protocol)
    result.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        result.bind(address)
    except OSError as error:
        result.close()
        raise OSError(f'{host}:{port} cannot be used ({error.strerror}): choose another one, such as '
                      f'--port {port + 1 if port < 65535 else 7860}') from error
    return result


def serve(questions: Questions, examples: Sequence[Example], listener: socket.socket) -> None:
    """Serve the page until the process is asked to stop; uploaded pictures are deleted then."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED='False', HF_HUB_DISABLE_TELEMETRY='1')
    with tempfile.TemporaryDirectory(prefix='dual_loop_demo_') as folder:
        os.environ['GRADIO_TEMP_DIR'] = folder
        import uvicorn

        # gradio 6.15 beside starlette 1.10
        warnings.filterwarnings('ignore', message='.*HTTP_422_UNPROCESSABLE_ENTITY')
        host, port = listener.getsockname()[:2]
        server = uvicorn.Server(uvicorn.Config(application(questions, examples), log_level='warning', ws='none',
                                               timeout_graceful_shutdown=1))
        print(f'http://{f"[{host}]" if ":" in host else host}:{port}', flush=True)
        server.run(sockets=[listener])


def application(questions: Questions, examples: Sequence[Example]):
    """The page as an ASGI application."""
    import gradio as gr
    from fastapi import FastAPI

    from .layout import build, style, theme

    page = gr.mount_gradio_app(FastAPI(), build(questions, examples), path='/', max_file_size=MAX_FILE, theme=theme(),
                               css=style(), footer_links=[], show_error=False, ssr_mode=False)
    return _Alone(page)


class _Alone:
    """Takes from HTML what the browser would fetch from elsewhere, and forbids the rest of it."""

    def __init__(self, application):
        self.application = application

    async def __call__(self, scope, receive, send):
        start, body = None, b''

        async def send_cleaned(message):
            nonlocal start, body
            if message['type'] == 'http.response.start':
                if not dict(message['headers']).get(b'content-type', b'').startswith(b'text/html'):
                    await send(message)
                else:
                    start = message
            elif start is None:
                await send(message)
            else:
                body += message.get('body', b'')
                if not message.get('more_body'):
                    cleaned = _FOREIGN.sub(b'', body)
                    kept = [each for each in start['headers'] if each[0] != b'content-length']
                    await send(start | dict(headers=[*kept, (b'content-length', str(len(cleaned)).encode()),
                                                     (b'content-security-policy', POLICY.encode())]))
                    await send(dict(type='http.response.body', body=cleaned))

        await self.application(scope, receive, send_cleaned)

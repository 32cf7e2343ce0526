"""The address, and what keeps the page to this machine; without gradio."""

import asyncio
import socket

import pytest

from dual_loop.demo_page.server import POLICY, _Alone, bound

FOREIGN = (b'<link rel="preconnect" href="https://fonts.example" />',
           b'<script\n src="https://cdn.example/a.js"\n async\n></script>')
OWN = b'<html><script src="./assets/a.js"></script><link rel="stylesheet" href="./a.css"><a href="https://x.example">x</a>'


def test_the_port_is_bound_or_refused_in_words():
    with bound('127.0.0.1', 0) as first:
        port = first.getsockname()[1]
        first.listen()
        with pytest.raises(OSError, match=r'cannot be used \(Address already in use\)') as caught:
            bound('127.0.0.1', port)
        assert str(caught.value).startswith(f'127.0.0.1:{port} ') and f'--port {port + 1}' in str(caught.value)
    with bound('127.0.0.1', port) as again:
        assert again.getsockname()[1] == port
    with pytest.raises(OSError, match=r'^--host no\.such\.host\.invalid is no address of a machine'):
        bound('no.such.host.invalid', 0)
    with pytest.raises(OSError, match='cannot be used'):
        bound('192.0.2.1', 0)  # of nobody


def test_an_address_of_ipv6():
    if not socket.has_ipv6:
        pytest.skip('no IPv6 here')
    try:
        with bound('::1', 0) as listener:
            assert listener.family == socket.AF_INET6
    except OSError as error:
        pytest.skip(f'no IPv6 here: {error}')


def answered(kind: bytes, *parts: bytes) -> tuple[dict, bytes]:
    """Headers and body that come through, of an answer in parts."""
    async def page(scope, receive, send):
        headers = [(b'content-type', kind), (b'content-length', str(len(b''.join(parts))).encode())]
        await send(dict(type='http.response.start', status=200, headers=headers))
        for number, part in enumerate(parts):
            await send(dict(type='http.response.body', body=part, more_body=number + 1 < len(parts)))

    sent = []

    async def keep(message):
        sent.append(message)

    asyncio.run(_Alone(page)(dict(type='http'), None, keep))
    start, *rest = sent
    return dict(start['headers']), b''.join(message['body'] for message in rest)


def test_the_page_asks_no_other_machine():
    whole = OWN.replace(b'<a ', b''.join(FOREIGN) + b'<a ')
    cut = whole.index(b'fonts.example')
    headers, body = answered(b'text/html; charset=utf-8', whole[:cut], whole[cut:])
    assert body == OWN and headers[b'content-length'] == str(len(OWN)).encode()
    assert headers[b'content-security-policy'] == POLICY.encode() and "default-src 'self'" in POLICY
    headers, body = answered(b'application/javascript', whole[:cut], whole[cut:])
    assert body == whole and b'content-security-policy' not in headers

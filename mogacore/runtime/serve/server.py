"""Running an application with uvicorn: own socket, and an orderly end after SIGTERM or Ctrl-C."""

from __future__ import annotations

import math
import signal
import socket

import uvicorn

from mogacore.errors import UserError

LARGEST_PORT = 65535


def bind(host: str, port: int) -> socket.socket:
    """A socket that has an address; it refuses connections until uvicorn listens on it.

    Raises:
        UserError: If the address cannot be used.
    """
    if not 0 <= port <= LARGEST_PORT:  # getaddrinfo would take the rest of a division
        raise UserError(f'--port {port} is out of range: use 0 to {LARGEST_PORT}')
    try:
        family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
    except (OSError, UnicodeError) as error:  # the latter for a label of a name that is too long
        reason = getattr(error, 'strerror', None) or error
        raise UserError(f'cannot listen on {host}:{port} ({reason}): choose another --host or --port') from None
    return sock


def address(sock: socket.socket) -> str:
    """The address for a browser or curl."""
    host, port = sock.getsockname()[:2]
    return f'http://{f"[{host}]" if ":" in host else host}:{port}'


class Server(uvicorn.Server):
    """uvicorn's server, which prints a line as soon as it listens."""

    greeting = ''

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        if self.started:
            print(self.greeting, flush=True)


def run_app(app, sock: socket.socket, greeting: str, grace_s: float, access_log: bool = False) -> None:
    """Serve until SIGTERM or Ctrl-C; then refuse new connections and finish the requests that run.

    Args:
        app: ASGI application.
        sock: Socket with an address.
        greeting: Line to print when the server listens.
        grace_s: Longest time for the running requests, in seconds.
        access_log: Log each request.
    """
    config = uvicorn.Config(
        app, log_level='info' if access_log else 'warning', access_log=access_log, http='h11', ws='none',
        lifespan='on', timeout_graceful_shutdown=math.ceil(grace_s), server_header=False,
    )  # fmt: skip
    server = Server(config)
    server.greeting = greeting
    # After its own handlers, uvicorn raises the signal again, which would end the process with an error.
    previous = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[sock])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

"""A local server of one weight file, whose responses can break off."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 8192  # 2 MiB


class Server(ThreadingHTTPServer):
    """Serves ``content``; the first ``cuts`` responses break off after ``cut`` bytes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.content, self.etag, self.cut, self.cuts, self.ranges = CONTENT, '"one"', None, 0, []

    def url(self, name='w.pth'):
        return f'http://127.0.0.1:{self.server_port}/{name}'


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, content = self.server, self.server.content
        if self.path.startswith('/gone'):
            return self.send_error(404)
        server.ranges.append(self.headers.get('Range'))
        start = 0
        if self.headers.get('Range') and self.headers.get('If-Range') == server.etag:
            start = int(self.headers['Range'].removeprefix('bytes=').rstrip('-'))
        if start >= len(content):
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(content)}')
            return self.end_headers()
        self.send_response(206 if start else 200)
        self.send_header('ETag', server.etag)
        self.send_header('Content-Length', str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if server.cuts > 0:
            server.cuts -= 1
            body = body[: server.cut]
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def serve():
    """Run a server."""
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()

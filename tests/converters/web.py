"""A web server on this machine that answers as it is told, well or badly."""

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web:
    """``serve(path, *answers)``: the n-th request of a path gets the n-th answer, or the last."""

    def __init__(self):
        self.pages, self.requests = {}, []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_GET(self):
                before = sum(path == self.path for path, _ in web.requests)
                web.requests.append((self.path, self.headers.get('Range')))
                answers = web.pages.get(self.path, [status(404)])
                self.close_connection = True
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    answers[min(before, len(answers) - 1)](self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.daemon_threads = True
        self.url = f'http://127.0.0.1:{self.server.server_port}'
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def serve(self, path, *answers):
        self.pages[path] = list(answers)
        return self.url + path

    def ranges(self, path):
        return [asked for seen, asked in self.requests if seen == path]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def head(handler, code, headers):
    handler.send_response(code)
    for name, value in headers.items():
        if value is not None:
            handler.send_header(name, str(value))
    handler.send_header('Connection', 'close')
    handler.end_headers()


def file(body, etag='"1"', cut=None, ranges=True, hold=0.0, **headers):
    """The file, or the rest of it that is asked for; cut off after so many bytes, or held back there for a while."""

    def answer(handler):
        first = 0
        asked = handler.headers.get('Range')
        if ranges and asked and handler.headers.get('If-Range') == etag:
            first = int(asked.removeprefix('bytes=').rstrip('-'))
        if first and first >= len(body):
            return head(handler, 416, {'Content-Range': f'bytes */{len(body)}'})
        span = {'Content-Range': f'bytes {first}-{len(body) - 1}/{len(body)}'} if first else {}
        length = {'Content-Length': len(body) - first, 'ETag': etag, **span}
        head(handler, 206 if first else 200, {**length, **{k.replace('_', '-'): v for k, v in headers.items()}})
        stop = len(body) if cut is None else cut
        handler.wfile.write(body[first:stop])
        if hold:
            handler.wfile.flush()
            time.sleep(hold)
            handler.wfile.write(body[stop:])
        return None

    return answer


def status(code):
    return lambda handler: head(handler, code, {'Content-Length': 0})


def redirect(to, **headers):
    return lambda handler: head(
        handler, 302, {'Location': to, 'Content-Length': 0, **{k.replace('_', '-'): v for k, v in headers.items()}}
    )


def raw(data):
    """Bytes that need not be HTTP."""
    return lambda handler: handler.wfile.write(data)


def silence(seconds):
    return lambda handler: time.sleep(seconds)

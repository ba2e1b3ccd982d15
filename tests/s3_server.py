"""An S3 server in a process of its own: moto's, with a log of requests, keys that must be right, and faults on order.

``python s3_server.py`` prints its port and serves until its standard input ends.
"""

import contextlib
import json
import logging
import re
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections import Counter
from dataclasses import dataclass

KEY, SECRET, BUCKET = "raydom-test-key", "raydom-test-secret", "raydom"
CONTROL = "/_raydom/"


@dataclass(frozen=True)
class Request:
    """What one request asked for, and the status of the answer."""

    kind: str
    """GET, HEAD, PUT, DELETE, LIST, or POST."""
    key: str
    status: int


class Server:
    """The server, as a test sees it."""

    def __init__(self):
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.endpoint = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def requests(self) -> list[Request]:
        """Those since the last call."""
        return [Request(*entry) for entry in self._control("log")]

    def counted(self) -> Counter:
        """How many of each kind there were since the last call."""
        return Counter(request.kind for request in self.requests())

    def fail(self, number: int, status: int, code: str, match: str = "") -> None:
        """Answer the next requests whose method and path match with an error instead."""
        self._control("fail", [number, status, code, match])

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)

    def _control(self, what: str, value: object = None):
        data = json.dumps(value).encode()
        with urllib.request.urlopen(f"{self.endpoint}{CONTROL}{what}", data, timeout=10) as answer:
            return json.load(answer)


@contextlib.contextmanager
def serving():
    server = Server()
    try:
        yield server
    finally:
        server.close()


class _Watched:
    """Moto's application behind a log, a check of the key, and faults."""

    def __init__(self, app):
        self._app, self._lock = app, threading.Lock()
        self._log: list[tuple[str, str, int]] = []
        self._faults: list[list] = []

    def __call__(self, environ, start_response):
        method, path, query = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]
        body = environ["wsgi.input"]
        if path.startswith(CONTROL):
            value = json.loads(body.read(int(environ["CONTENT_LENGTH"])))
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(self._control(path.removeprefix(CONTROL), value)).encode()]
        listed = urllib.parse.parse_qs(query).get("prefix", [""])[0]
        key = path.removeprefix(f"/{BUCKET}").lstrip("/") or listed
        kind = "LIST" if method == "GET" and re.search("list-type|uploads|location", query) else method
        signed = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        refusal = self._refusal(f"{method} {path}")
        if refusal is None and (signed is None or signed[1] != KEY):
            refusal = 403, "InvalidAccessKeyId" if signed else "AccessDenied"
        if refusal is not None:
            self._note(kind, key, refusal[0])
            with contextlib.suppress(TypeError, ValueError):
                body.read(int(environ.get("CONTENT_LENGTH")))
            start_response(f"{refusal[0]} {refusal[1]}", [("Content-Type", "application/xml")])
            text = f"<Error><Code>{refusal[1]}</Code><Message>Told to.</Message><Key>{KEY}</Key></Error>"
            return [b"" if method == "HEAD" else text.encode()]

        def started(status, headers, error=None):
            self._note(kind, key, int(status.split()[0]))
            return start_response(status, headers, error)

        return self._app(environ, started)

    def _note(self, kind, key, status):
        with self._lock:
            self._log.append((kind, key, status))

    def _refusal(self, request):
        with self._lock:
            for fault in self._faults:
                if fault[0] > 0 and re.search(fault[3], request):
                    fault[0] -= 1
                    return fault[1], fault[2]
        return None

    def _control(self, what, value):
        with self._lock:
            if what == "fail":
                self._faults.append(value)
                return None
            told, self._log = self._log, []
            return told


def _serve():
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)

    class Handler(MotoRequestHandler):
        disable_nagle_algorithm = True  # an answer's head and body are sent one after the other
        protocol_version = "HTTP/1.1"

    app = _Watched(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler)
    print(server.port, flush=True)  # noqa: T201
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    _serve()

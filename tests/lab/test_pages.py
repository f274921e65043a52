import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pxeboot.errors import PxebootError
from pxeboot.lab import pages
from pxeboot.lab.pages import fetch_page, titles


def serve_pages(*statuses: int) -> tuple[HTTPServer, list[int]]:
    """A web server that answers with each status once, the last one for ever."""
    left = list(statuses)

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(left.pop(0) if len(left) > 1 else left[0])
            self.end_headers()
            self.wfile.write(b"<title>node1</title>")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, left


def test_a_page_is_asked_for_again_until_its_server_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAUSE_SECONDS", 0.01)
    server, left = serve_pages(503, 200)
    try:
        assert fetch_page("127.0.0.1", server.server_port) == "<title>node1</title>"
        assert left == [200]
    finally:
        server.shutdown()
        server.server_close()


def test_a_page_that_never_comes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE_SECONDS", 0.05)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(PxebootError, match="refused"):
            fetch_page("127.0.0.1", unused.getsockname()[1])


def test_titles_tell_who_answered() -> None:
    server, _ = serve_pages(200)
    try:
        assert titles("127.0.0.1", 2, server.server_port) == ["node1", "node1"]
    finally:
        server.shutdown()
        server.server_close()

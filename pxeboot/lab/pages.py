"""What a client of the machines sees: their pages, fetched as a browser would."""

import http.client
import re
import time

from pxeboot.errors import PxebootError

PAGE_SECONDS = 30.0
"""How long a node that is ready may take until its web server answers."""
PAUSE_SECONDS = 0.5
_TITLE = re.compile(r"<title>([^<]*)</title>")


def fetch_page(address: str, port: int = 80, path: str = "/") -> str:
    """GET a page from a web server, tried again until it answers with 200. Raises PxebootError."""
    deadline = time.monotonic() + PAGE_SECONDS
    while True:
        trouble = ""
        connection = http.client.HTTPConnection(address, port, timeout=PAGE_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            if response.status == http.HTTPStatus.OK:
                return response.read().decode(errors="replace")
            trouble = f"{response.status} {response.reason}"
        except (OSError, http.client.HTTPException) as error:
            trouble = str(error)
        finally:
            connection.close()
        if time.monotonic() > deadline:
            raise PxebootError(
                f"http://{address}{path} gave no page: {trouble}", "look at the node's console log"
            )
        time.sleep(PAUSE_SECONDS)


def titles(address: str, times: int, port: int = 80) -> list[str]:
    """The titles of a page asked for so many times, each time by a new connection. Raises PxebootError."""
    found = (_TITLE.search(fetch_page(address, port)) for _ in range(times))
    return [title[1] if title else "" for title in found]

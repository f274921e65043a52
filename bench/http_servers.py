"""The servers of the HTTP benchmarks: pxeboot and nginx, with the same image to give."""

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.wire import INTERFACE, PREFIX_BITS, SERVER_ADDRESS, Wire
from pxeboot.cli.client import ask
from pxeboot.errors import PxebootError
from pxeboot.image.library import Library
from tests.parts import put_image

MACHINES = 256


@dataclass(frozen=True)
class Serving:
    """A server that answers: its process, and the URLs of the image, by number of the machine that asks."""

    pid: int
    images: list[str]
    script: str
    """A URL with `%02x` for the number of a machine."""


Contender = Callable[[Wire, Path, int], AbstractContextManager[Serving]]


def mac(number: int) -> str:
    """The n-th machine."""
    return f"52:54:00:00:00:{number:02x}"


def image_of(size: int) -> bytes:
    """Bytes that nothing compresses, the same ones each time they are made."""
    return os.urandom(1 << 20) * (size >> 20)


@contextlib.contextmanager
def pxeboot(laid: Wire, files: Path, size: int, http: str = "") -> Iterator[Serving]:
    """Our server with MACHINES nodes and an image of `size` bytes; `http` is more for its `[http]` table."""
    put_image(Library(files / "images"), root=image_of(size))
    config = files / "pxeboot.toml"
    config.write_text(f"""
[server]
state_dir = "{files}"
[http]
max_connections_per_address = 4096
{http}
[[network]]
interface = "{INTERFACE}"
subnet = "10.64.0.0/{PREFIX_BITS}"
[[group]]
name = "web"
image = "web"
match = ["*"]
""")
    base = f"http://{SERVER_ADDRESS}"
    command = [sys.executable, "-m", "pxeboot.cli.main", "serve", "-c", str(config)]
    with laid.serving(command, files / "log") as process:
        wait_until_it_answers(laid, base)
        for number in range(MACHINES):
            ask(files, "PATCH", f"/nodes/{mac(number)}", {"name": f"node{number}"})
        urls = " ".join(f"{base}/ipxe/{mac(number)}" for number in range(MACHINES))
        scripts = laid.load_from(["curl", "-sS", *urls.split()], 30)
        images = [f"{found}/root" for found in re.findall(r"pxeboot.url=(\S+)", scripts)]
        if len(images) != MACHINES:
            raise PxebootError(f"{len(images)} scripts came for {MACHINES} machines:\n{scripts[:500]}", "")
        yield Serving(process.pid, images, f"{base}/ipxe/{mac(0)[:-2]}%02x")


@contextlib.contextmanager
def nginx(laid: Wire, files: Path, size: int) -> Iterator[Serving]:
    """nginx with one worker and sendfile, with the image and MACHINES small files."""
    (files / "root").write_bytes(image_of(size))
    for number in range(MACHINES):
        (files / f"script-{number:02x}").write_text("#!ipxe\n" + "x" * 700)
    config = files / "nginx.conf"
    config.write_text(f"""
daemon off; master_process off; worker_processes 1; user root;
error_log {files}/error.log; pid {files}/pid;
events {{ worker_connections 2048; }}
http {{
    access_log off; sendfile on; tcp_nopush on; open_file_cache max=1000;
    client_body_temp_path {files}/body; proxy_temp_path {files}/proxy; fastcgi_temp_path {files}/fastcgi;
    uwsgi_temp_path {files}/uwsgi; scgi_temp_path {files}/scgi;
    server {{ listen {SERVER_ADDRESS}:80; root {files}; }}
}}
""")
    files.chmod(0o755)
    base = f"http://{SERVER_ADDRESS}"
    with laid.serving(["nginx", "-c", str(config)], files / "log") as process:
        wait_until_it_answers(laid, base)
        yield Serving(process.pid, [f"{base}/root"] * MACHINES, f"{base}/script-%02x")


def wait_until_it_answers(laid: Wire, url: str) -> None:
    """Until anything comes back, 20 s at most. Raises PxebootError."""
    for _ in range(100):
        told = laid.load_from(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{url}/"], 5)
        if told != "000":
            return
        time.sleep(0.2)
    raise PxebootError(f"nothing answers at {url}", "see what the server logs")

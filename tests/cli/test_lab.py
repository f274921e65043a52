import os
import socket
import threading
from pathlib import Path

import pytest

from pxeboot.cli import lab
from pxeboot.errors import PxebootError
from pxeboot.lab.qemu import Machine
from pxeboot.lab.scenario import Progress
from pxeboot.mac import Mac
from pxeboot.web.views import NodeView

MAC = Mac("52:54:00:77:00:01")


def progress(stage: str | None, failure: str = "", since: float = 0.0) -> Progress:
    machine = Machine(name="node1", mac=MAC, tap="tap1", folder=Path("/lab"))
    node = NodeView(mac=MAC, name="node1", stage=stage, stage_since=since, failure=failure)
    return Progress(machine=machine, powered_on=100.0, node=node)


def test_a_line_is_shown_for_each_change_and_none_for_no_change() -> None:
    shown: dict[str, str] = {}
    assert lab.changed_lines([progress(None)], shown, 100.5) == ["   0.5 s  node1  firmware"]
    assert lab.changed_lines([progress("image")], shown, 112.0) == ["  12.0 s  node1  image"]
    assert lab.changed_lines([progress("image")], shown, 113.0) == []
    failed = progress("failed", "digest: it is another file")
    assert lab.changed_lines([failed], shown, 114.0) == [
        "  14.0 s  node1  failed: digest: it is another file"
    ]


def test_the_time_of_a_ready_machine_stands_still() -> None:
    assert lab.changed_lines([progress("ready", since=142.0)], {}, 999.0) == ["  42.0 s  node1  ready"]


def test_a_page_is_read_without_its_head_and_with_terms_beside_what_they_are() -> None:
    page = """<html><head><title>x</title><style>p { a: b }</style></head>
    <body><h1>node1</h1><dl><dt>Image</dt><dd><code>abc</code></dd></dl><p>one
    two &amp; three</p>end</body></html>"""
    assert lab.page_text(page) == "node1\nImage: abc\none two & three\nend"


@pytest.mark.parametrize("typed", [b"root\x1d", b"root\x1dnot this"])
def test_the_console_carries_both_ways_until_the_escape_key(typed: bytes) -> None:
    machine, line = socket.socketpair()
    keyboard, keys = os.pipe()
    glass, screen = os.pipe()
    with machine, line:
        relaying = threading.Thread(target=lab.relay, args=(line, keyboard, screen))
        relaying.start()
        machine.sendall(b"login: ")
        assert os.read(glass, 100) == b"login: "
        os.write(keys, typed)
        relaying.join(timeout=5)
        assert not relaying.is_alive()
        line.shutdown(socket.SHUT_WR)
        assert machine.recv(100) + machine.recv(100) == b"root"
    for descriptor in (keyboard, keys, glass, screen):
        os.close(descriptor)


def test_the_console_ends_when_the_machine_goes_off() -> None:
    machine, line = socket.socketpair()
    keyboard, keys = os.pipe()
    machine.close()
    with line:
        lab.relay(line, keyboard, 1)
    os.close(keyboard)
    os.close(keys)


def test_the_console_of_no_lab_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "NAME", "there-is-no-such-lab")
    with pytest.raises(PxebootError, match="no lab is up"):
        lab.console("node1")

"""What is laid over a node's root: chosen, filled in, packed."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot import lasting
from pxeboot.config import parse
from pxeboot.errors import PxebootError
from pxeboot.inventory.overlay import Laid, NodeFile, Overlay
from pxeboot.overlay import RootFile, archive, lasting_files, lay

TEMPLATE = Laid(template=True)
CONFIG = """
[[network]]
interface = "eth1"
subnet = "10.77.0.0/24"

[[group]]
name = "web"
image = "web"
match = ["*"]
"""


def test_later_files_hold_over_earlier_ones() -> None:
    group = {"/etc/a": NodeFile(b"group"), "/etc/b": NodeFile(b"group")}
    node = {"/etc/b": NodeFile(b"node", Laid(mode=0o600))}
    assert lay([group, node], {}) == [RootFile("/etc/a", b"group"), RootFile("/etc/b", b"node", 0o600)]


def test_a_template_is_filled_in_and_another_file_is_not() -> None:
    text = NodeFile(b"$name at ${address}: $$5\n", TEMPLATE)
    plain = NodeFile(b"<?php echo $name; ?>")
    laid = lay([{"/a": text, "/b": plain}], {"name": "web1", "address": "10.0.0.5"})
    assert [file.data for file in laid] == [b"web1 at 10.0.0.5: $5\n", b"<?php echo $name; ?>"]


@pytest.mark.parametrize(
    ("data", "told", "hint"),
    [
        (b"$nfs", "/etc/x: the template wants $nfs, which is not set", "--var nfs="),
        (b"costs 5$ each", "/etc/x: the template has a $ that names nothing", "$$"),
        (b"\xff", "/etc/x: the template is not UTF-8", "template = true"),
    ],
)
def test_a_template_that_cannot_be_filled_is_told_by_path(data: bytes, told: str, hint: str) -> None:
    with pytest.raises(PxebootError) as caught:
        lay([{"/etc/x": NodeFile(data, TEMPLATE)}], {})
    assert told in str(caught.value)
    assert hint in caught.value.hint


@given(st.binary(max_size=100))
def test_any_template_is_filled_or_refused(data: bytes) -> None:
    try:
        lay([{"/etc/x": NodeFile(data, TEMPLATE)}], {"name": "n"})
    except PxebootError as error:
        assert str(error).startswith("/etc/x: ")


def test_the_archive_holds_names_modes_and_owners_and_nothing_of_this_machine() -> None:
    files = [
        RootFile("/etc/ssl/key", b"k" * 700, 0o640, "root:ssl-cert"),
        RootFile("/a" * 90, b"x", 0o755),
    ]
    packed = archive(files)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        members = tar.getmembers()
        assert [(item.name, item.size, item.mode, item.uname, item.gname) for item in members] == [
            ("etc/ssl/key", 700, 0o640, "root", "ssl-cert"),
            (("/a" * 90)[1:], 1, 0o755, "root", "root"),
        ]
    assert packed == archive(files)


def test_a_node_keeps_a_machine_id_and_a_host_key() -> None:
    kept = lasting.make("web1")
    files = lasting_files(kept)
    assert {path: file.laid.mode for path, file in files.items()} == {
        "/etc/machine-id": 0o444,
        "/etc/ssh/ssh_host_ed25519_key": 0o600,
        "/etc/ssh/ssh_host_ed25519_key.pub": 0o644,
    }
    assert len(files["/etc/machine-id"].data) == 33
    assert kept != lasting.make("web1")


def test_an_overlay_comes_back_from_the_store_as_it_was() -> None:
    overlay = Overlay({"a": "1"}, {"/etc/x": NodeFile(b"\0", Laid(mode=0o4755))}, lasting.make("n"))
    assert Overlay.from_json(overlay.to_json()) == overlay
    assert Overlay.from_json({}) == Overlay()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('files = { "etc/motd" = "motd" }', "group.1.files.etc/motd: 'etc/motd' is not an absolute path"),
        ('files = { "/etc/../x" = "x" }', "is not an absolute path inside the image"),
        ('files = { "/x" = { source = "x", owner = "0:0" } }', "owner: '0:0' is not a user"),
        ('vars = { name = "x" }', "'name' is given by pxeboot itself"),
        ('vars = { "a-b" = "x" }', "'a-b' is not a name"),
    ],
)
def test_what_a_group_cannot_have_is_refused(line: str, told: str) -> None:
    with pytest.raises(PxebootError) as caught:
        parse(CONFIG + line)
    assert told in str(caught.value)
    assert caught.value.hint

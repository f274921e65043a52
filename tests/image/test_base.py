"""Trees made elsewhere: what `docker export` writes, OCI layouts, and what an attacker would."""

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pxeboot.errors import PxebootError
from pxeboot.image import base

from .trees import names, write

pytestmark = pytest.mark.net  # owners are set, which takes root


def member(name: str, text: str | None = None, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A file with text, or what `fields` make of it."""
    info = tarfile.TarInfo(name)
    data = (text or "").encode()
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=kind, linkname=target)


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, mode=0o755)


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


async def unpacked(tmp_path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    tree = tmp_path / "top/tree"
    tree.parent.mkdir(exist_ok=True)
    (tmp_path / "base.tar").write_bytes(tar(*members))
    await base.unpack(tmp_path / "base.tar", tree, tmp_path, lambda share: None)
    return tree


async def test_files_keep_owner_mode_time_and_links(tmp_path: Path) -> None:
    tree = await unpacked(
        tmp_path,
        folder("./usr/"),
        member("./usr/su", "x", mode=0o4755, uid=0, gid=33, mtime=1000),
        link("./su", "/usr/su"),
        link("./usr/also", "usr/su", tarfile.LNKTYPE),
        member("./run/pipe", type=tarfile.FIFOTYPE),
        member("./dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("./deep/er/file", "y"),
    )
    status = (tree / "usr/su").stat()
    assert (status.st_mode & 0o7777, status.st_gid, status.st_mtime, status.st_nlink) == (0o4755, 33, 1000, 2)
    assert str((tree / "su").readlink()) == "/usr/su"
    assert (tree / "deep/er/file").read_text() == "y"
    assert (tree / "run/pipe").is_fifo()
    assert not (tree / "dev/null").exists()


async def test_links_of_folders_are_followed_inside_the_tree(tmp_path: Path) -> None:
    tree = await unpacked(
        tmp_path, folder("usr/lib"), link("opt", "/usr/lib"), member("opt/x", "1"),
        link("up", "../../../usr"), member("up/y", "2"),
    )  # fmt: skip
    assert names(tree) == {"opt", "up", "usr/lib/x", "usr/y"}


@pytest.mark.parametrize(
    "members",
    [
        [member("../outside/secret", "evil")],
        [member("a/../../../outside/secret", "evil")],
        [link("a", "TOP/outside"), member("a/secret", "evil")],
        [link("a", "../../outside"), member("a/secret", "evil")],
        [link("a", "TOP/outside/secret"), member("a", "evil")],
        [link("a", "../../outside/secret", tarfile.LNKTYPE), member("a", "evil")],
        [link("a", "TOP/outside/secret", tarfile.LNKTYPE)],
        [link("usr", "TOP/outside")],
        [link("etc", "../../outside")],
        [link("a", "b"), link("b", "a"), member("a/secret", "evil")],
        [link(".wh.secret", "x"), link("a", "TOP/outside"), member("a/.wh.secret")],
    ],
)
async def test_nothing_outside_the_tree_is_written_read_or_removed(
    members: list[tuple[tarfile.TarInfo, bytes]], tmp_path: Path
) -> None:
    write(tmp_path, "outside/secret", text="mine")
    for info, _ in members:
        info.linkname = info.linkname.replace("TOP", str(tmp_path))
    with contextlib.suppress(PxebootError):
        await unpacked(tmp_path, *members)
    assert names(tmp_path / "outside") == {"secret"}
    assert (tmp_path / "outside/secret").read_text() == "mine"
    assert (tmp_path / "outside/secret").stat().st_nlink == 1


NAMES = st.sampled_from(["a", "b", "a/b", "b/a", "../a", "/a", "a/../b", ".wh.a", "a/.wh..wh..opq"])


@given(st.lists(st.tuples(NAMES, st.sampled_from("fdlh"), NAMES), max_size=8))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tar_stays_inside_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[str, str, str]]
) -> None:
    tmp_path = tmp_path_factory.mktemp("any")
    kinds = {"f": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE}
    members = [member(name, type=kinds[kind], linkname=target) for name, kind, target in parts]
    write_layout(tmp_path / "layout", tar(*members))
    before = names(tmp_path / "layout")
    (tmp_path / "top").mkdir()
    with contextlib.suppress(PxebootError):
        asyncio.run(base.unpack(tmp_path / "layout", tmp_path / "top/tree", tmp_path, lambda share: None))
    assert {path.name for path in (tmp_path / "top").iterdir()} <= {"tree"}
    assert names(tmp_path / "layout") == before


@pytest.mark.parametrize("program", [("gzip",), ("xz", "-1"), ("zstd", "-q", "-c")])
async def test_packed_tars_are_read(program: tuple[str, ...], tmp_path: Path) -> None:
    packed = subprocess.run(program, input=tar(member("a", "1")), stdout=subprocess.PIPE, check=True).stdout
    (tmp_path / "base.tar").write_bytes(packed)
    await base.unpack(tmp_path / "base.tar", tmp_path / "tree", tmp_path, lambda share: None)
    assert names(tmp_path / "tree") == {"a"}


@pytest.mark.parametrize("data", [b"", b"no tar", tar(member("a", "1"))[:700], gzip.compress(b"x" * 99)[:20]])
async def test_what_is_no_tar_is_refused_by_name(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "base.tar").write_bytes(data)
    with pytest.raises(PxebootError, match=r"base.tar cannot be read as a tar"):
        await base.unpack(tmp_path / "base.tar", tmp_path / "tree", tmp_path, lambda share: None)


async def test_a_folder_is_copied_with_its_links_as_they_are(tmp_path: Path) -> None:
    write(tmp_path / "from", "etc/motd")
    (tmp_path / "from/etc/host").symlink_to("/etc/hostname")
    os.chown(tmp_path / "from/etc/motd", 33, 33)
    await base.unpack(tmp_path / "from", tmp_path / "tree", tmp_path, lambda share: None)
    assert names(tmp_path / "tree") == {"etc/motd", "etc/host"}
    assert (tmp_path / "tree/etc/motd").stat().st_uid == 33


def put(layout: Path, data: bytes) -> dict[str, object]:
    """A blob; its descriptor."""
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def write_layout(layout: Path, *layers: bytes) -> None:
    """An OCI image layout with one image for amd64, and one for arm64 which is not there."""
    manifest = put(layout, json.dumps({"layers": [put(layout, layer) for layer in layers]}).encode())
    other = {"digest": f"sha256:{'0' * 64}", "platform": {"os": "linux", "architecture": "arm64"}}
    amd64 = manifest | {"platform": {"os": "linux", "architecture": "amd64"}}
    inner = put(layout, json.dumps({"manifests": [amd64, other]}).encode())
    (layout / "index.json").write_text(json.dumps({"manifests": [inner]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


async def test_layers_lie_over_one_another_and_whiteouts_hide(tmp_path: Path) -> None:
    one = tar(member("etc/a", "1"), member("etc/b", "1"), member("opt/x/y", "1"), member("var/old", "1"))
    two = tar(member("etc/.wh.a"), member("etc/b", "2"), folder("var"), member("var/.wh..wh..opq"))
    three = gzip.compress(tar(member("var/new", "3"), member(".wh.opt"), member("etc/c", "3")))
    write_layout(tmp_path, one, two, three)
    shares: list[float | None] = []
    await base.unpack(tmp_path, tmp_path / "tree", tmp_path, shares.append)
    assert names(tmp_path / "tree") == {"etc/b", "etc/c", "var/new"}
    assert (tmp_path / "tree/etc/b").read_text() == "2"
    assert shares[-1] == 1.0


async def test_a_blob_that_was_changed_or_is_missing_is_refused(tmp_path: Path) -> None:
    layer = tar(member("a", "1"))
    write_layout(tmp_path, layer)
    blob = tmp_path / "blobs/sha256" / hashlib.sha256(layer).hexdigest()
    blob.write_bytes(tar(member("a", "2")))
    with pytest.raises(PxebootError, match="does not have its digest"):
        await base.unpack(tmp_path, tmp_path / "tree", tmp_path, lambda share: None)
    blob.unlink()
    with pytest.raises(PxebootError, match="is missing"):
        await base.unpack(tmp_path, tmp_path / "tree2", tmp_path, lambda share: None)


@pytest.mark.parametrize(
    "digest", ["sha256:../../../../etc/passwd", "sha512:" + "0" * 64, "", "sha256:" + "A" * 64, None]
)
async def test_a_digest_is_no_path(digest: str | None, tmp_path: Path) -> None:
    (tmp_path / "oci-layout").write_text("{}")
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [{"digest": digest}]}))
    with pytest.raises(PxebootError, match=r"names a blob"):
        await base.unpack(tmp_path, tmp_path / "tree", tmp_path, lambda share: None)

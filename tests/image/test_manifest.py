import hashlib

import pytest

from pxeboot.errors import PxebootError
from pxeboot.image.manifest import Artefact, Artefacts, Manifest, Package, Stripped

MANIFEST = Manifest(
    recipe="web",
    suite="bookworm",
    kernel_version="6.1.0-1-amd64",
    artefacts=Artefacts(
        root=Artefact(sha256="a" * 64, size=3),
        kernel=Artefact(sha256="b" * 64, size=2),
        initrd=Artefact(sha256="c" * 64, size=1),
    ),
    unpacked_bytes=9,
    packages=(Package(name="bash", version="5.2", size=7), Package(name="dash", version="0.5", size=1)),
    stripped=(Stripped(rule="perl", size=5),),
)


def test_the_bytes_are_canonical() -> None:
    assert MANIFEST.encode() == (
        b'{"artefacts":{"initrd":{"sha256":"' + b"c" * 64 + b'","size":1},"kernel":{"sha256":"' + b"b" * 64
        + b'","size":2},"root":{"sha256":"' + b"a" * 64 + b'","size":3}},"format":2,"kernel_version":'
        b'"6.1.0-1-amd64","packages":[{"name":"bash","size":7,"version":"5.2"},{"name":"dash","size":1,'
        b'"version":"0.5"}],"recipe":"web","stripped":[{"rule":"perl","size":5}],"suite":"bookworm","unpacked_bytes":9}\n'
    )  # fmt: skip


def test_what_is_encoded_can_be_decoded() -> None:
    assert Manifest.decode(MANIFEST.encode()) == MANIFEST


def test_the_digest_is_that_of_the_bytes() -> None:
    assert MANIFEST.digest == hashlib.sha256(MANIFEST.encode()).hexdigest()


def test_another_root_is_another_image() -> None:
    root = Artefact(sha256="d" * 64, size=3)
    other = MANIFEST.model_copy(update={"artefacts": MANIFEST.artefacts.model_copy(update={"root": root})})
    assert other.digest != MANIFEST.digest


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"{}", "recipe: Field required"),
        (MANIFEST.encode().replace(b'"format":2', b'"format":1'), "format: Input should be 2"),
        (MANIFEST.encode().replace(b'"size":2', b'"size":-2'), "artefacts.kernel.size"),
        (MANIFEST.encode().replace(b"aaaa", b"../a"), "artefacts.root.sha256"),
        (MANIFEST.encode().replace(b'"suite"', b'"suit"'), "suite: Field required"),
    ],
)
def test_a_damaged_manifest_is_refused_by_name(data: bytes, told: str) -> None:
    with pytest.raises(PxebootError) as caught:
        Manifest.decode(data, "x/manifest.json")
    assert str(caught.value).startswith("x/manifest.json: ")
    assert told in str(caught.value)

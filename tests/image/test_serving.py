"""The library beside a running server: what nodes run stays, and what nobody vouches for is not booted."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pyroute2 import IPRoute

from pxeboot.image.library import Library
from tests.lab.conditions import needs_network
from tests.parts import put_image
from tests.serving import CLIENT, CONFIG, MAC, SERVER, Served, served

pytestmark = [pytest.mark.net, needs_network]


def script_of(server: Served) -> str:
    """What the machine is told to boot."""
    return server.cable.run("curl", "-s", f"http://{SERVER}/ipxe/{MAC}").stdout


def announce(server: Served) -> None:
    """Make the machine known, and give it an address."""

    def add() -> None:
        with IPRoute() as links:
            links.addr("add", index=links.link_lookup(ifname=CLIENT)[0], address="10.77.0.250", prefixlen=24)

    server.cable.in_client(add)
    assert server.cli("node", "set", MAC, "--name", "node1").returncode == 0


def test_what_a_node_was_told_to_boot_stays_whether_the_server_runs_or_not(tmp_path: Path) -> None:
    library = Library(tmp_path / "images")
    with served(tmp_path) as server:
        announce(server)
        told = library.resolve("web")
        assert "#!ipxe" in script_of(server)
        put_image(library, root=b"two")
        three = put_image(library, root=b"three")
        collected = server.cli("image", "gc", "--keep", "1")
        assert collected.stdout.count("removed: ") == 1, collected
        assert {image.digest for image in Library(tmp_path / "images").list()} == {told.digest, three.digest}
        server.stop()
        assert "0 of 2 images" in server.cli("image", "gc", "--keep", "1").stdout
        server.start()
        assert server.cli("node", "forget", "node1").returncode == 0
        server.cli("image", "gc", "--keep", "1")
        assert {image.digest for image in Library(tmp_path / "images").list()} == {three.digest}


def test_an_image_without_a_trusted_signature_is_not_booted(tmp_path: Path) -> None:
    key, library = Ed25519PrivateKey.generate(), Library(tmp_path / "images")
    library.sign(put_image(library), key)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "image.pub").write_bytes(public)
    with served(tmp_path, f'{CONFIG}\n[images]\ntrusted = ["{tmp_path}/image.pub"]\n') as server:
        announce(server)
        assert "kernel http" in script_of(server)
        assert "only those signed by one of 1 keys" in server.cli("check").stdout
        unsigned = put_image(library, root=b"by somebody")  # by hand, past `pxeboot image tag`
        assert "kernel http" not in script_of(server)
        assert f"image {unsigned.digest[:12]} is not signed" in server.log
        assert "is not signed" in server.cli("image", "tag", "new", unsigned.digest).stderr
        library.sign(unsigned, key)
        assert "kernel http" in script_of(server)

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pxeboot.errors import PxebootError
from pxeboot.image import signature
from pxeboot.image.library import Library
from pxeboot.image.signature import Signature, public_key, read_private_key, read_public_key

from .test_library import add, manifest

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


def test_a_signature_is_of_one_manifest_by_one_key() -> None:
    made = Signature.of(manifest(), KEY)
    assert made.holds(manifest())
    assert not made.holds(manifest("other"))
    assert not made.model_copy(update={"key": public_key(OTHER)}).holds(manifest())


def test_openssls_keys_are_read_and_it_verifies_what_we_sign(tmp_path: Path) -> None:
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    made = Signature.of(manifest(), read_private_key(private))
    assert made.key == read_public_key(public)
    (tmp_path / "sig").write_bytes(bytes.fromhex(made.signature))
    (tmp_path / "text").write_text(f"pxeboot image {manifest().digest}\n")
    verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin"]
    subprocess.run(
        [*verify, "-in", tmp_path / "text", "-sigfile", tmp_path / "sig"], check=True, capture_output=True
    )


@pytest.mark.parametrize(
    "text", ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_what_is_no_key_is_refused_with_how_to_make_one(text: str, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(text)
    with pytest.raises(PxebootError, match=r"key.pem: no private key") as caught:
        read_private_key(path)
    assert "openssl genpkey" in caught.value.hint
    with pytest.raises(PxebootError, match=r"key.pem: no public key"):
        read_public_key(path)


def test_a_library_that_trusts_nobody_in_particular_asks_for_no_signature(tmp_path: Path) -> None:
    library = Library(tmp_path)
    library.set_tag("web", add(library).digest)
    assert library.bootable("web").signature is None


def test_only_what_a_trusted_key_signed_is_tagged_and_booted(tmp_path: Path) -> None:
    open_one, library = Library(tmp_path), Library(tmp_path, [public_key(KEY)])
    image = add(library)
    with pytest.raises(PxebootError, match="is not signed") as caught:
        library.set_tag("web", image.digest)
    assert f"image sign {image.digest[:12]}" in caught.value.hint
    open_one.set_tag("web", image.digest)
    open_one.sign(image, OTHER)
    with pytest.raises(PxebootError, match=r"which is not trusted"):
        library.bootable("web")
    open_one.sign(image, KEY)
    assert library.bootable("web") == image


def test_a_signature_of_another_image_is_no_signature(tmp_path: Path) -> None:
    library = Library(tmp_path, [public_key(KEY)])
    one, two = add(library, "one"), add(library, "two")
    library.sign(one, KEY)
    (one.path / signature.FILE_NAME).rename(two.path / signature.FILE_NAME)
    with pytest.raises(PxebootError, match="a signature that is not of it"):
        library.bootable(two.digest)


def test_a_damaged_signature_is_told(tmp_path: Path) -> None:
    library = Library(tmp_path, [public_key(KEY)])
    image = add(library)
    (image.path / signature.FILE_NAME).write_text("{}")
    with pytest.raises(PxebootError, match=r"signature.json is damaged"):
        library.bootable(image.digest)


def test_trust_can_be_changed_while_serving(tmp_path: Path) -> None:
    library = Library(tmp_path, [public_key(KEY)])
    image = add(library)
    library.sign(image, KEY)
    assert library.bootable(image.digest) == image
    library.trust([public_key(OTHER)])
    with pytest.raises(PxebootError, match="not trusted"):
        library.bootable(image.digest)
    library.trust([])
    assert library.bootable(image.digest) == image

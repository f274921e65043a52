"""The operator's Ed25519 signature of an image: who may say what nodes boot.

Keys are PEM files as OpenSSL writes them: `openssl genpkey -algorithm ed25519`, `openssl pkey -pubout`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from pydantic import BaseModel, Field, ValidationError

from pxeboot.config import ImagesConfig
from pxeboot.errors import PxebootError
from pxeboot.image.manifest import Manifest

FILE_NAME = "signature.json"


class Signature(BaseModel, frozen=True, extra="forbid"):
    """The contents of `signature.json`, beside the manifest that it is of. RFC 8032."""

    key: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The public key, hexadecimal."""
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")

    @classmethod
    def of(cls, manifest: Manifest, key: Ed25519PrivateKey) -> Self:
        """Sign a manifest, and with it the digests of the files it names."""
        return cls(key=public_key(key), signature=key.sign(_text(manifest)).hex())

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The signature in a file, None where there is no file. Raises PxebootError."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            raise PxebootError(
                f"{path} is damaged", "sign the image again with `pxeboot image sign`"
            ) from None

    def encode(self) -> bytes:
        """As JSON."""
        return self.model_dump_json(indent=2).encode() + b"\n"

    def holds(self, manifest: Manifest) -> bool:
        """Whether it is of this manifest, by the key it names."""
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.key))
            key.verify(bytes.fromhex(self.signature), _text(manifest))
        except (InvalidSignature, ValueError):
            return False
        return True


def check(manifest: Manifest, signature: Signature | None, trusted: Iterable[str]) -> None:
    """See that one of the trusted keys has signed. Raises PxebootError."""
    short = manifest.digest[:12]
    if signature is None:
        raise PxebootError(f"image {short} is not signed", f"`pxeboot image sign {short}` signs it")
    if not signature.holds(manifest):
        raise PxebootError(
            f"image {short} has a signature that is not of it", "do not use it; import it again"
        )
    if signature.key not in trusted:
        raise PxebootError(
            f"image {short} is signed by the key {signature.key[:16]}…, which is not trusted",
            "add that key to images.trusted, if it is one of yours",
        )


def trusted_keys(config: ImagesConfig) -> tuple[str, ...]:
    """The public keys that the configuration trusts, hexadecimal. Raises PxebootError."""
    return tuple(map(read_public_key, config.trusted))


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """A key without a passphrase. Raises PxebootError."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PxebootError(f"{path}: no private key can be read: {error}", _HINT.format(path)) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise PxebootError(f"{path} is no Ed25519 key", _HINT.format(path))
    return key


def read_public_key(path: Path) -> str:
    """A public key as hexadecimal digits. Raises PxebootError."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise PxebootError(f"{path}: no public key can be read: {error}", _PUBLIC_HINT) from None
    if not isinstance(key, Ed25519PublicKey):
        raise PxebootError(f"{path} is no Ed25519 key", _PUBLIC_HINT)
    return _hexadecimal(key)


_HINT = "make one with `openssl genpkey -algorithm ed25519 -out {}`"
_PUBLIC_HINT = "write it with `openssl pkey -in KEY -pubout`"


def public_key(key: Ed25519PrivateKey) -> str:
    """The other half of a private key, hexadecimal."""
    return _hexadecimal(key.public_key())


def _hexadecimal(key: Ed25519PublicKey) -> str:
    return key.public_bytes_raw().hex()


def _text(manifest: Manifest) -> bytes:
    """What is signed: it can be nothing but an image."""
    return f"pxeboot image {manifest.digest}\n".encode()

"""The certificate of the node-facing HTTPS port: files made, read, and tried before nodes rely on them."""

import logging
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

from pxeboot.config import Config
from pxeboot.errors import PxebootError
from pxeboot.web.certificates import NAME, Facts, Pair, issue, make_authority, read

log = logging.getLogger(__name__)

FOLDER = "tls"
"""In the state directory: what `pxeboot tls init` makes."""
WARN_DAYS = 60
_AUTHORITY, _AUTHORITY_KEY, _SERVER = "authority.pem", "authority.key", "server.pem"


def init(folder: Path, addresses: Iterable[IPv4Address]) -> None:
    """Make an authority and a server certificate, all or nothing. Raises PxebootError where there is one."""
    if folder.exists():
        raise PxebootError(
            f"{folder} exists; a new authority would be unknown to every node that runs",
            "`pxeboot tls renew` issues a new server certificate; to begin anew, move the folder away",
        )
    now = datetime.now(UTC)
    authority = make_authority(now)
    draft = folder.with_name(f"{folder.name}.new")
    with _told_of(folder):
        draft.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(draft / _AUTHORITY, authority.certificate)
        _write(draft / _AUTHORITY_KEY, authority.key)
        _write(draft / _SERVER, _joined(issue(authority, addresses, now)))
        draft.rename(folder)


def renew(folder: Path, addresses: Iterable[IPv4Address]) -> None:
    """Issue a new server certificate by the authority that is there. Raises PxebootError."""
    with _told_of(folder):
        authority = Pair((folder / _AUTHORITY).read_bytes(), (folder / _AUTHORITY_KEY).read_bytes())
        try:
            issued = issue(authority, addresses, datetime.now(UTC))
        except ValueError as error:
            raise PxebootError(f"{folder}: {error}", "put the authority's files back from a backup") from None
        _write(folder / f"{_SERVER}.new", _joined(issued))
        (folder / f"{_SERVER}.new").rename(folder / _SERVER)


@dataclass(frozen=True, slots=True)
class Tls:
    """What the HTTPS port shows, and what nodes check it by."""

    context: ssl.SSLContext
    name: str
    """The DNS name that nodes check."""
    authority: bytes
    """PEM, for the initrd."""
    facts: Facts
    files: tuple[Path, Path | None]

    @classmethod
    def load(cls, config: Config) -> Self:
        """Read the files of `[https]` and try a node's handshake with them. Raises PxebootError."""
        https = config.https
        assert https is not None
        own = config.server.state_dir / FOLDER
        certificate, authority = https.certificate or own / _SERVER, https.authority or own / _AUTHORITY
        if https.certificate is None and not own.exists():
            raise PxebootError(f"https: {own} has no certificate", "run `pxeboot tls init`, or name your own")
        with _told_of(certificate):
            trusted = authority.read_bytes()
            facts = read(certificate.read_bytes())
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, https.key)
            name = _checked_name(facts, certificate)
            _try(context, name, trusted.decode("ascii"))
        return cls(context, name, trusted, facts, (certificate, https.key))

    def reload(self) -> None:
        """Show what the files have now to connections that come from now on. Raises PxebootError."""
        with _told_of(self.files[0]):
            self.context.load_cert_chain(*self.files)

    @property
    def expires_soon(self) -> bool:
        """Whether an operator should see to it now."""
        return self.facts.expires - datetime.now(UTC) < timedelta(days=WARN_DAYS)

    def __str__(self) -> str:
        told = f"for {self.name}, until {self.facts.expires:%Y-%m-%d}"
        if self.expires_soon:
            told += " only: renew it (`pxeboot tls renew` where the authority is ours)"
        return told


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Turn what goes wrong with certificate files into what the operator can do about it."""
    try:
        yield
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or str(error)
        raise PxebootError(
            f"{path}: a node would refuse it: {reason}",
            "certificate (with its chain), key and authority must belong together and be in force",
        ) from error
    except OSError as error:
        raise PxebootError(
            f"{error.filename or path}: {error.strerror}", "it must be a readable file"
        ) from error
    except ValueError as error:
        raise PxebootError(f"{path}: {error}", "write certificates and keys as PEM") from error


def _checked_name(facts: Facts, path: Path) -> str:
    if not facts.names:
        raise PxebootError(
            f"{path}: it is for no DNS name",
            "have it issued for one (subjectAltName); nodes check the name and need not resolve it",
        )
    return facts.names[0].replace("*", NAME, 1)


def _try(server: ssl.SSLContext, name: str, authority: str) -> None:
    """One handshake in memory, as a node makes it. Raises ssl.SSLError."""
    client = ssl.create_default_context(cadata=authority)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(back, there, server_hostname=name),
        server.wrap_bio(there, back, server_side=True),
    )
    waiting = set(ends)
    for _ in range(10):  # a handshake has three flights at most
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.discard(end)
            except ssl.SSLWantReadError:
                continue
    assert not waiting


def _joined(pair: Pair) -> bytes:
    return pair.certificate + pair.key


def _write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.touch(0o600, exist_ok=False)
    path.write_bytes(data)

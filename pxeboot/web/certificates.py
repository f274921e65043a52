"""An own certificate authority for the nodes and the server certificates it issues (RFC 5280), as PEM.

Nodes check the name NAME, not an address: the certificate holds however they reach us. The addresses stand in
it too, for clients that know us by them. Keys are on P-256: a handshake costs this server a tenth of RSA's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAME = "pxeboot"
"""What nodes call the server whose certificate our own authority issued."""
AUTHORITY_DAYS, SERVER_DAYS = 30 * 365, 10 * 365
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)
"""Valid from before any clock: a machine without a battery starts in 1970."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says: for which DNS names and addresses, and how long."""

    names: tuple[str, ...]
    addresses: frozenset[IPv4Address]
    expires: datetime


def make_authority(now: datetime) -> Pair:
    """A new authority, self-signed, which can issue for nobody but servers (no authorities below it)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"pxeboot authority {x509.random_serial_number():040x}"[:58])
    builder = _builder(name, name, key.public_key(), now + timedelta(days=AUTHORITY_DAYS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return _pair(builder.sign(key, hashes.SHA256()), key)


def issue(authority: Pair, addresses: Iterable[IPv4Address], now: datetime) -> Pair:
    """A server certificate for NAME and these addresses. Raises ValueError for an authority that is none."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    signer = load_pem_private_key(authority.key, None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority's key is not on an elliptic curve")  # noqa: TRY004  the file's fault
    key = ec.generate_private_key(ec.SECP256R1())
    expires = min(now + timedelta(days=SERVER_DAYS), issuer.not_valid_after_utc)
    builder = _builder(_name(NAME), issuer.subject, key.public_key(), expires)
    known_as = [x509.DNSName(NAME), *(x509.IPAddress(address) for address in addresses)]
    for extension, critical in (
        (x509.SubjectAlternativeName(known_as), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False),
    ):
        builder = builder.add_extension(extension, critical)
    return _pair(builder.sign(signer, hashes.SHA256()), key)


def read(certificate: bytes) -> Facts:
    """What the first certificate of a PEM file says. Raises ValueError."""
    found = x509.load_pem_x509_certificate(certificate)
    try:
        known_as = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return Facts((), frozenset(), found.not_valid_after_utc)
    addresses = known_as.get_values_for_type(x509.IPAddress)
    return Facts(
        tuple(known_as.get_values_for_type(x509.DNSName)),
        frozenset(item for item in addresses if isinstance(item, IPv4Address)),
        found.not_valid_after_utc,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, expires: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(expires)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*, signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )

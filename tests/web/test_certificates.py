"""An own authority and what it issues."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import pytest
from cryptography import x509

from pxeboot.web.certificates import NAME, SERVER_DAYS, Pair, issue, make_authority, read

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ADDRESSES = [IPv4Address("10.77.0.1"), IPv4Address("10.78.0.1")]


def test_a_certificate_is_for_our_name_and_addresses() -> None:
    facts = read(issue(make_authority(NOW), ADDRESSES, NOW).certificate)
    assert (facts.names, facts.addresses) == ((NAME,), frozenset(ADDRESSES))
    assert facts.expires == NOW + timedelta(days=SERVER_DAYS)


def test_it_is_valid_for_a_machine_whose_clock_starts_in_1970() -> None:
    authority = make_authority(NOW)
    for pem in (authority.certificate, issue(authority, ADDRESSES, NOW).certificate):
        assert x509.load_pem_x509_certificate(pem).not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)


def test_the_authority_signed_it_and_may_sign_no_other_authority() -> None:
    authority = make_authority(NOW)
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    issued = x509.load_pem_x509_certificate(issue(authority, ADDRESSES, NOW).certificate)
    issued.verify_directly_issued_by(issuer)
    assert issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_nothing_outlives_its_authority() -> None:
    authority = make_authority(NOW)
    late = NOW + timedelta(days=29 * 365)
    assert read(issue(authority, [], late).certificate).expires == read(authority.certificate).expires


def test_damaged_files_are_refused() -> None:
    authority = make_authority(NOW)
    for damaged in (Pair(b"no PEM", authority.key), Pair(authority.certificate, b"no PEM")):
        with pytest.raises(ValueError, match=r"PEM|deserialize"):
            issue(damaged, [], NOW)

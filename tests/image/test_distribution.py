from pxeboot.image import distribution
from pxeboot.image.apt import Source

HOST = [Source("http://host/debian", ("bookworm",), "main")]


def test_the_hosts_sources_serve_where_a_recipe_names_none() -> None:
    assert distribution.sources("bookworm", (), None, HOST) == HOST
    assert distribution.sources("buzz", (), None, []) == []


def test_a_mirror_is_an_address_or_a_line() -> None:
    found = distribution.sources(
        "bookworm", ("http://m/debian", "deb http://m/x flat/ "), "/my/keys.gpg", HOST
    )
    assert [(source.uris, source.suites, source.components) for source in found] == [
        ("http://m/debian", ("bookworm",), "main"),
        ("http://m/x", ("flat/",), ""),
    ]
    assert {source.options for source in found} == {(("Signed-By", "/my/keys.gpg"),)}


def test_a_line_with_keys_of_its_own_keeps_them() -> None:
    (found,) = distribution.sources("sid", ("deb [signed-by=/other.gpg] http://m sid main",), None, [])
    assert found.options == (("signed-by", "/other.gpg"),)


def test_ubuntu_comes_from_its_archive_with_updates_and_security() -> None:
    found = distribution.sources("noble", (), None, [])
    assert [source.suites[0] for source in found] == ["noble", "noble-updates", "noble-security"]
    assert {source.components for source in found} == {"main universe"}
    assert {source.options for source in found} == {(("Signed-By", distribution.UBUNTU.keyring),)}


def test_an_ubuntu_mirror_brings_its_components_and_keys() -> None:
    (found,) = distribution.sources("noble", ("http://m/ubuntu",), None, HOST)
    assert (found.uris, found.components) == ("http://m/ubuntu", "main universe")
    assert found.options == (("Signed-By", distribution.UBUNTU.keyring),)


def test_each_distribution_has_its_own_kernel() -> None:
    assert distribution.of_suite("noble").kernel == "linux-image-virtual"
    assert distribution.of_suite("trixie").kernel == "linux-image-amd64"

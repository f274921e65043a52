from pathlib import Path

from pxeboot.image.apt import Source, for_suite, host_sources, read_one_line, read_stanzas

ONE_LINE = """
# deb http://mirror/off bookworm main
deb http://mirror/debian bookworm main contrib # all of it
deb-src http://mirror/debian bookworm main
deb [arch=amd64,arm64 signed-by=/k.gpg] http://mirror/security bookworm-security main
deb http://mirror/flat ./
"""
STANZAS = """Types: deb deb-src
# a comment
URIs: http://mirror/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb-src
URIs: http://mirror/sources
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://mirror/off
Suites: bookworm
Components: main
"""


def test_one_line_entries_are_read() -> None:
    assert list(read_one_line(ONE_LINE)) == [
        Source("http://mirror/debian", ("bookworm",), "main contrib"),
        Source(
            "http://mirror/security",
            ("bookworm-security",),
            "main",
            (("Architectures", "amd64 arm64"), ("signed-by", "/k.gpg")),
        ),
        Source("http://mirror/flat", ("./",), ""),
    ]


def test_stanzas_are_read_unless_switched_off_or_of_sources_only() -> None:
    (source,) = read_stanzas(STANZAS)
    assert (source.uris, source.suites) == ("http://mirror/debian", ("bookworm", "bookworm-updates"))
    assert source.options == (("Signed-By", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc"),)


def test_an_entry_is_written_for_source_packages_with_its_key() -> None:
    source = Source("http://m", ("bookworm", "bookworm-updates"), "main", (("Signed-By", "/k.gpg"),))
    assert source.stanza("deb-src") == (
        "Types: deb-src\nURIs: http://m\nSuites: bookworm bookworm-updates\n"
        "Components: main\nSigned-By: /k.gpg\n"
    )


def test_what_is_written_is_read_back() -> None:
    sources = [*read_one_line(ONE_LINE), *read_stanzas(STANZAS)]
    assert list(read_stanzas("\n".join(source.stanza("deb") for source in sources))) == sources


def test_a_suite_brings_its_updates_and_no_other_release() -> None:
    sources = [
        Source("http://a", ("bookworm", "bookworm-updates", "trixie", "book"), "main"),
        Source("http://b", ("bookworm-security",), "main"),
        Source("http://c", ("sid", "bullseye-updates"), "main"),
        Source("http://d", ("bookworm/updates",), "main"),
    ]
    assert [(source.uris, source.suites) for source in for_suite(sources, "bookworm")] == [
        ("http://a", ("bookworm", "bookworm-updates")),
        ("http://b", ("bookworm-security",)),
        ("http://d", ("bookworm/updates",)),
    ]


def test_both_forms_of_the_host_are_found(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://one bookworm main\n")
    (tmp_path / "sources.list.d/two.list").write_text("deb http://two bookworm main\n")
    (tmp_path / "sources.list.d/three.sources").write_text("Types: deb\nURIs: http://three\nSuites: sid\n")
    (tmp_path / "sources.list.d/four.list.disabled").write_text("deb http://four bookworm main\n")
    assert [source.uris for source in host_sources(tmp_path)] == ["http://one", "http://two", "http://three"]

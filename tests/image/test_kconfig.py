import contextlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.errors import PxebootError
from pxeboot.image import kconfig

KCONFIG = """\
menuconfig NET
\tbool "Networking support"

if NET

config BPF_JIT
\tbool "enable BPF Just In Time compiler"
\tdepends on BPF
\tdepends on HAVE_CBPF_JIT || \\
\t\tHAVE_EBPF_JIT
\thelp
\t  It depends on nothing you say here.

config PACKET
\ttristate "Packet socket"

endif
"""


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(PxebootError):
        kconfig.parse(text, "a.config")


def test_a_fragment_is_settings_and_comments() -> None:
    text = '# why\n\nCONFIG_SMP=y\nCONFIG_NR_CPUS=512\n# CONFIG_MODULES is not set\nCONFIG_NAME="a b"\n'
    assert kconfig.parse(text, "a.config") == {
        "SMP": "y",
        "NR_CPUS": "512",
        "MODULES": "n",
        "NAME": '"a b"',
    }


def test_a_line_that_is_no_setting_is_refused_with_its_place() -> None:
    with pytest.raises(PxebootError, match=r"^a\.config: line 2: 'SMP=y' is no setting$"):
        kconfig.parse("CONFIG_NET=y\nSMP=y\n", "a.config")


def test_fragments_that_contradict_are_refused_by_name() -> None:
    with pytest.raises(PxebootError) as caught:
        kconfig.merge({"virt": {"SMP": "y", "NET": "y"}, "nic": {"NET": "y", "SMP": "n"}})
    assert str(caught.value) == "fragments 'virt' and 'nic' contradict: CONFIG_SMP is y and n"


@given(st.dictionaries(st.from_regex(r"[A-Z0-9_]{1,20}", fullmatch=True), st.sampled_from(["y", "n", "7"])))
def test_what_is_written_is_read_again(settings: dict[str, str]) -> None:
    text = kconfig.encode(settings)
    assert kconfig.parse(text, "merged") == settings
    assert text == kconfig.encode(dict(reversed(settings.items())))


def test_what_did_not_survive_is_told_with_what_it_depends_on() -> None:
    wanted = {"NET": "y", "BPF_JIT": "y", "PACKET": "y", "NONESUCH": "y", "MODULES": "n"}
    gone = kconfig.lost(wanted, {"NET": "y", "PACKET": "n"}, [KCONFIG])
    assert [str(item) for item in gone] == [
        "CONFIG_BPF_JIT=y became n: it depends on BPF and HAVE_CBPF_JIT || HAVE_EBPF_JIT",
        "CONFIG_PACKET=y became n: it follows from other options, or from the menu it stands in",
        "CONFIG_NONESUCH=y became n: this kernel has no such option",
    ]


def test_kconfig_files_are_read_only_when_something_is_gone() -> None:
    def files() -> Iterator[str]:
        raise AssertionError("read")
        yield ""

    assert kconfig.lost({"NET": "y"}, {"NET": "y"}, files()) == []

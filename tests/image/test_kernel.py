import pytest

from pxeboot.errors import PxebootError
from pxeboot.image.kernel import ModuleIndex

INDEX = ModuleIndex(
    dependencies=(
        "kernel/net/virtio_net.ko: kernel/net/net_failover.ko kernel/virtio/virtio.ko\n"
        "kernel/net/net_failover.ko: kernel/net/failover.ko\n"
        "kernel/net/failover.ko:\n"
        "kernel/virtio/virtio.ko:\n"
        "kernel/net/r8169.ko:\n"
        "kernel/net/realtek.ko:\n"
        "kernel/char/virtio-rng.ko:\n"
        "kernel/net/nft_ct.ko:\n"
        "kernel/net/nft_nat.ko:\n"
        "kernel/lib/libcrc32c.ko:\n"
        "kernel/crypto/crc32c_generic.ko:\n"
    ),
    builtin="kernel/block/loop.ko\nkernel/net/packet/af-packet.ko\n",
    soft="# a comment\nsoftdep r8169 pre: realtek\nsoftdep libcrc32c pre: crc32c post: not-there\n",
    aliases="alias crc32c crc32c_generic\nalias pci:v000010ECd00008168sv* r8169\n",
)


def names(*patterns: str) -> list[str]:
    return [path.rpartition("/")[2].partition(".")[0] for path in INDEX.closure(patterns)]


def test_what_a_module_needs_comes_with_it() -> None:
    assert names("virtio_net") == ["failover", "net_failover", "virtio_net", "virtio"]


def test_paths_are_those_of_modules_dep() -> None:
    assert INDEX.closure(["nft_ct"]) == ["kernel/net/nft_ct.ko"]


def test_dashes_and_underscores_are_the_same() -> None:
    assert names("virtio_rng") == names("virtio-rng") == ["virtio-rng"]


def test_a_module_inside_the_kernel_adds_nothing() -> None:
    assert names("loop", "af_packet") == []


def test_a_pattern_names_several() -> None:
    assert names("nft_*") == ["nft_ct", "nft_nat"]


def test_a_soft_dependency_comes_too() -> None:
    assert names("r8169") == ["r8169", "realtek"]


def test_a_soft_dependency_may_be_an_alias_or_missing() -> None:
    assert names("libcrc32c") == ["crc32c_generic", "libcrc32c"]


@pytest.mark.parametrize("name", ["e1000x", "zfs_*"])
def test_a_name_found_nowhere_is_refused_by_name(name: str) -> None:
    with pytest.raises(PxebootError) as caught:
        INDEX.closure(["loop", name])
    assert f"no module {name!r}" in str(caught.value)

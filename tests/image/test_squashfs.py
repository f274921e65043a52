from pathlib import Path

import pytest

from pxeboot.image import squashfs
from pxeboot.image.recipe import SquashFs


def test_the_share_is_read_from_the_progress_bar() -> None:
    assert squashfs.share("[=====================================|          ] 4725/5907  80%") == 0.8
    assert squashfs.share("[=============================================] 5907/5907 100%") == 1.0
    assert squashfs.share("Filesystem size 68809.35 Kbytes (67.20 Mbytes)") is None
    assert squashfs.share("\t37.22% of uncompressed filesystem size") is None


@pytest.mark.net
async def test_equal_trees_give_equal_bytes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/motd").write_text("hello" * 1000)
    shares: list[float | None] = []
    for name in ("one", "two"):
        await squashfs.make(tree, tmp_path / name, SquashFs(level=3), 1735689600, shares.append)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    made_at = int.from_bytes((tmp_path / "one").read_bytes()[8:12], "little")  # in the superblock
    assert (made_at, shares[-1]) == (1735689600, 1.0)

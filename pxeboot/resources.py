"""Files that come with the package but are not Python: where they are."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def initrd_files() -> Path:
    """The folder with `init`, `agent` and the module list, which run on the node.

    An installed copy has them inside the package, a checkout beside it.
    """
    return _folder("initrd")


def kernel_fragments() -> Path:
    """The folder with the fragments of kernel configurations."""
    return _folder("kernel")


def _folder(name: str) -> Path:
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / name

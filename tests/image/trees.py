"""Small trees of files, and what is in them."""

from pathlib import Path


def write(tree: Path, *paths: str, text: str = "x") -> None:
    """Make files with the same text, and the folders they are in."""
    for path in paths:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)


def names(tree: Path) -> set[str]:
    """Paths of all files and links."""
    return {str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir() or path.is_symlink()}

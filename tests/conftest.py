"""The order of the tests: pure ones, then those with namespaces and sockets, virtual machines last."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by what a test needs; within that, as the files have it."""
    items.sort(key=lambda item: ("net" in item.keywords) + 2 * ("boot" in item.keywords))

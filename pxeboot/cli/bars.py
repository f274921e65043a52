"""Progress on a terminal: one line per step."""

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Bars:
    """One line per step of a build, with its time."""

    def __init__(self) -> None:
        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def show(self, step: str, share: float | None) -> None:
        """Take what `build` reports."""
        if step not in self._tasks:
            self._tasks[step] = self._progress.add_task(step, total=None)
        if share is not None:
            self._progress.update(self._tasks[step], total=1.0, completed=share)

"""A bar or a turning wheel where one waits; on something that is not a terminal, one line when the step is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_TITLE_WIDTH = 28


class RateColumn(ProgressColumn):
    """Records per second."""

    def render(self, task: Task) -> Text:
        """The rate so far."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:>9,.0f}/s")


@contextmanager
def bar(console: Console, title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of `total` records; call what it gives with the number of records done since the last call."""
    columns = (
        TextColumn(f"{title:<{_TITLE_WIDTH}}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.update(task, advance=count)


@contextmanager
def wheel(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """Something turns where nobody can tell how much is left; call what it gives with what is being done now."""
    if not console.is_terminal:
        yield lambda doing: None
        return
    with console.status(title) as status:
        yield lambda doing: status.update(f"{title}: {doing}")


def done(console: Console, title: str, summary: str) -> None:
    """Say that a step is done."""
    console.print(f"{title:<{_TITLE_WIDTH}} {summary}", highlight=False, soft_wrap=True)

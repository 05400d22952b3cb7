"""What `afterglow demo` shows: live figures on a terminal, plain lines elsewhere, and the shoppers after each act."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sinks.recommendation import Recommendation
from streams.demonstration.observation import Counted
from streams.demonstration.performance import EVENTS_PER_SECOND, Progress
from streams.demonstration.portraits import Portrait
from streams.demonstration.shop import Act, Shop
from streams.demonstration.summary import Summary

PLAIN_LINE_SECONDS: Final = 3.0
_BAR: Final = 12
_NOTABLE: Final = 0.05  # a department with less of a profile, before and after, is not told of


class Screen:
    def __init__(self, console: Console) -> None:
        self._console = console

    def open(self, shop: Shop) -> None:
        self._console.print(
            f"[bold yellow]Afterglow[/] on a simulated shop: {len(shop.products):,} products in {_departments(shop)} "
            f"departments, {len(shop.shoppers):,} shoppers. Each has two or three interests at once; between the acts "
            "some drop one and take up another. One search in six is noise, and some of the rest is mistyped."
        )
        self._console.print()
        self.note("starting Kafka, Qdrant, the encoding worker and what folds events in")

    def note(self, text: str) -> None:
        """Something on the side, as it is."""
        self._console.print(f"  [dim]{escape(text)}[/]")

    def begin(self, act: Act, number: int) -> None:
        weeks = f"weeks {act.weeks.start} to {act.weeks.stop - 1}"
        change = "" if number == 0 else ": interests have changed"
        self._rule(f"Act {('one', 'two')[number]}, {weeks}{change}")

    @contextmanager
    def progress(self) -> Iterator[Callable[[Progress], None]]:
        """Shows the progress it is given: redrawn in place on a terminal, else a line every few seconds."""
        if self._console.is_terminal:
            with Live(console=self._console, auto_refresh=False) as live:
                yield lambda progress: live.update(_figures(progress), refresh=True)
        else:
            yield _Lines(self._console).show

    def portraits(self, acts: Sequence[Sequence[Portrait]]) -> None:
        """The shoppers after the last of these acts; after the second, how they changed since the first."""
        self._console.print()
        if len(acts) == 1:
            self._console.print(
                "Four of them, as read from Qdrant: their interests, each with its share of the profile and its "
                "strongest texts; → what is new to them, ↻ what to buy again, with the strongest reason (and its part "
                "of the score)."
            )
        else:
            self._console.print(
                "The same four now. The first line is what only the simulation knows: which part of the profile each "
                "department makes up, before and after."
            )
        for number, portrait in enumerate(acts[-1]):
            self._portrait(portrait, acts[0][number] if len(acts) > 1 else None)

    def stalled(self, reason: str) -> None:
        self._console.print(f"[bold red]Given up:[/] {escape(reason)}.")

    def logs(self, folder: Path) -> None:
        """The last words of every service: the folder may be a temporary one."""
        for log in sorted(folder.glob("*.log")):
            words = log.read_text(errors="replace").splitlines()[-8:]
            self._console.print(f"[bold]{escape(log.name)}[/]")
            self._console.print(escape("\n".join(words)))

    def close(self, summary: Summary, kept: Path | None) -> None:
        self._rule("What was done")
        good = summary.complete
        self._console.print(
            f"  [bold {'green' if good else 'red'}]{summary.sent:,} events sent, {summary.folded:,} folded in[/], "
            f"{summary.refused:,} refused. {summary.products:,} products and {summary.profiles:,} profiles stored, "
            f"{summary.seconds:.0f} s in all."
        )
        for missing in summary.missing[:5]:
            self._console.print(
                f"  [red]{escape(missing.user_id)}: {_counted(missing.sent)} sent, "
                f"{_counted(missing.folded)} folded in[/]"
            )
        if len(summary.missing) > 5:
            self._console.print(f"  [red]and {len(summary.missing) - 5:,} more[/]")
        if good:
            self._console.print("  Each profile has exactly the events of its shopper: all were counted, one by one.")
        texts = summary.texts_encoded + summary.texts_from_cache
        self._console.print(
            f"  From sending an event to reading it in its profile: half within {_ms(summary.freshness_p50_ms)}, 99 of "
            f"100 within {_ms(summary.freshness_p99_ms)} ({summary.freshness_probes:,} probes, at up to "
            f"{EVENTS_PER_SECOND:,.0f} events/s). "
            f"{_percent(summary.texts_from_cache / texts if texts else None)} of {texts:,} texts came from the cache."
        )
        self._rule("What next")
        program = _program()
        if kept is None:
            steps = [(f"{program} up", "the same, for your own events")]
        else:
            steps = [
                (f"{program} up --data-dir {kept}", "start it again, with all of this in it"),
                (f"{program} recommend mira --data-dir {kept}", "then, from another terminal, look around"),
            ]
        for step, meaning in [*steps, ("README.md", "what is stored, how to read it, what is guaranteed")]:
            self._console.print(f"  [bold]{escape(step)}[/]  [dim]{escape(meaning)}[/]", soft_wrap=True)

    def _portrait(self, now: Portrait, before: Portrait | None) -> None:
        self._console.print()
        self._console.print(
            f"[bold yellow]{escape(now.user_id.capitalize())}[/]  "
            f"[dim]{now.searches} searches, {now.purchases} purchases[/]"
        )
        if before is not None:
            self._console.print(_change(before, now))
        for line in (*_interests(now), *_recommended(now)):
            self._console.print(line, no_wrap=True, overflow="ellipsis")

    def _rule(self, title: str) -> None:
        self._console.print()
        self._console.rule(f"[bold]{title}[/]", align="left", style="yellow")


class _Lines:
    """Progress where nothing can be redrawn."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_at = 0.0

    def show(self, progress: Progress) -> None:
        if time.monotonic() < self._next_at and progress.folded < progress.total:
            return
        self._next_at = time.monotonic() + PLAIN_LINE_SECONDS
        self._console.print(
            f"  {progress.sent:,} of {progress.total:,} events sent ({progress.sent_per_second:,.0f}/s), "
            f"{progress.folded:,} folded in ({progress.folded_per_second:,.0f}/s), {progress.waiting:,} waiting, "
            f"freshness p50 {_ms(progress.freshness_p50_ms)}, {_percent(progress.cache_hit_share)} of texts cached, "
            f"{progress.profiles:,} profiles",
            soft_wrap=True,
        )


def _figures(progress: Progress) -> RenderableType:
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        ProgressBar(total=progress.total, completed=progress.folded, width=28, complete_style="yellow"),
        f"{progress.folded:,} of {progress.total:,} events folded in",
        f"[dim]{_day(progress.ts) if progress.ts else ''}[/]",
    )
    figures = Table.grid(padding=(0, 2))
    for _ in range(3):
        figures.add_column(style="dim", no_wrap=True)
        figures.add_column(justify="right", min_width=8, no_wrap=True)
    figures.add_row(
        "events in",
        f"{progress.sent_per_second:,.0f}/s",
        "freshness p50",
        _ms(progress.freshness_p50_ms),
        "profiles",
        f"{progress.profiles:,}",
    )
    figures.add_row(
        "folded in",
        f"{progress.folded_per_second:,.0f}/s",
        "freshness p99",
        _ms(progress.freshness_p99_ms),
        "cache hits",
        _percent(progress.cache_hit_share),
    )
    figures.add_row("waiting", f"{progress.waiting:,}")
    return Padding(Group(bar, figures), (0, 0, 0, 2))


def _interests(portrait: Portrait) -> Iterator[Text]:
    for interest in portrait.interests:
        yield _line(f"{interest.share:>5.0%} ", _share_bar(interest.share), " ", " · ".join(interest.texts))
    rest = 1.0 - sum(interest.share for interest in portrait.interests)
    if portrait.interests and rest >= 0.005:
        bar = _share_bar(rest, "bright_black")
        yield _line(f"{rest:>5.0%} ", bar, " ", ("the rest: smaller, or long ago", "dim"))


def _recommended(portrait: Portrait) -> Iterator[Text]:
    items = [("→", item) for item in portrait.new] + [("↻", item) for item in portrait.again]
    longest = max((len(item.title) for _, item in items), default=0)
    for sign, item in items:
        title = item.title.ljust(longest)
        yield _line((f"    {sign} {title}  ", "green"), (_because(item), "dim"))


def _because(item: Recommendation) -> str:
    """The strongest reason, with its share of the score where there are others."""
    reason = item.because[0]
    behind = next((text for text in reason.texts if text != item.title), item.title)
    words = {
        "bought": f"bought {' '.join(reason.texts)}",
        "interest": f"near “{behind}”",
        "recent": f"recent “{behind}”",
        "together": f"bought with “{behind}”",
        "related": f"goes with “{behind}”",
        "clicked": f"clicked after “{behind}”",
    }
    share = "" if reason.share >= 0.995 else f" ({reason.share:.0%})"
    return words.get(reason.kind, reason.kind) + share


def _change(before: Portrait, now: Portrait) -> Text:
    """What part of the profile each department made up, before and now."""
    told = Text("  ")
    names = [name for name in {**now.departments, **before.departments} if name]
    for name in sorted(names, key=lambda name: -before.departments.get(name, 0.0)):
        then, since = before.departments.get(name, 0.0), now.departments.get(name, 0.0)
        if max(then, since) < _NOTABLE:
            continue
        told.append(f"{name} ", style="bold")
        told.append(f"{then:.0%} → {since:.0%}   ", style="green" if since > then else "red" if since < then else "")
    return told


def _line(*parts: str | Text | tuple[str, str]) -> Text:
    return Text.assemble(*parts)


def _share_bar(share: float, style: str = "yellow") -> Text:
    eighths = round(max(share, 0.0) * _BAR * 8)
    return Text(("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()).ljust(_BAR), style=style)


def _program() -> str:
    """How this was called, so that it can be called again."""
    called = Path(sys.argv[0])
    if called.name != "afterglow":
        return "afterglow"
    return str(called.relative_to(Path.cwd()) if called.is_relative_to(Path.cwd()) else called)


def _departments(shop: Shop) -> int:
    return len({product.category for product in shop.products})


def _counted(counted: Counted) -> str:
    return f"{counted.searches:,} searches and {counted.purchases:,} purchases"


def _day(ts: int) -> str:
    return f"{datetime.fromtimestamp(ts / 1000, UTC):%-d %B}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f} ms"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"

"""The report of many kills: a line for each point, a line for each way to reach it."""

import statistics
from collections.abc import Callable, Iterable, Sequence

from tests.faults.kill_run import Outcome
from tests.faults.verdict import Fate

HEAD = (
    "point",
    "kills",
    "in flight",
    "lost",
    "wrongly lost",
    "silently dead",
    "other wrongs",
    "missed",
    "serves again",
)
WIDTHS = (5, 5, 9, 4, 12, 13, 12, 6, 30)


def report(outcomes: Sequence[Outcome], seconds: float) -> str:
    killed = [outcome for outcome in outcomes if outcome.way.kills]
    cut = [outcome for outcome in outcomes if not outcome.way.kills]
    lines = [line(HEAD)]
    lines += [line(figures(point, group)) for point, group in grouped(killed, lambda each: each.point)]
    lines += [line(figures("all", killed)), ""]
    if cut:
        lines += ["commits cut off, no kill:", line(figures("K7", cut)), ""]
    by_way = grouped(outcomes, lambda each: f"{each.way.point}  {each.way.how}")
    lines += [f"{len([each for each in group if not each.missed]):5}  {way}" for way, group in by_way]
    lines += [f"missed: {each.way.point} {each.way.how}: {each.missed}" for each in outcomes if each.missed]
    lines += ["", *(f"{each.way.point} {each.way.how}: {problem}" for each in outcomes for problem in each.wrongs)]
    lines += [
        f"{len(killed)} kills in {seconds / 60:.1f} minutes. Lost: rotated by the platform, and on no disk of ours."
    ]
    lines += ["Serves again: from the start of the new process to the first answer of GetAccount."]
    return "\n".join(lines)


def grouped(outcomes: Iterable[Outcome], key: Callable[[Outcome], str]) -> list[tuple[str, list[Outcome]]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome), []).append(outcome)
    return sorted(groups.items())


def figures(name: str, group: Sequence[Outcome]) -> tuple[str, ...]:
    hit = [outcome for outcome in group if not outcome.missed]
    fates = [fate for outcome in group for fate in outcome.fates.values()]
    seconds = [outcome.serving_seconds for outcome in group if outcome.serving_seconds is not None]
    counted = [
        len(hit),
        sum(len(outcome.deaths) or len(outcome.fates) for outcome in hit),
        *(fates.count(fate) for fate in (Fate.LOST, Fate.WRONGLY_LOST, Fate.SILENTLY_DEAD, Fate.WRONG)),
        len(group) - len(hit),
    ]
    again = f"median {statistics.median(seconds):.2f} s, max {max(seconds):.2f} s" if seconds else ""
    return (name, *map(str, counted), again)


def line(cells: Sequence[str]) -> str:
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))

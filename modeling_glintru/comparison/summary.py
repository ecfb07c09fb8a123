"""The short form of the results: one table with a column for each data set, and a sentence for each."""

from __future__ import annotations

from collections.abc import Sequence

from .rows import MAIN, DataReport, Row, verdict
from .tables import markdown_table, value_cell
from .trials import REFERENCE

__all__ = ["short_form", "verdicts"]

SAID = (("better", "better than"), ("worse", "worse than"), ("open", "not told apart from"))


def short_form(reports: Sequence[DataReport]) -> str:
    """Every row's test metric on every data set, past items excluded, and what may be said; empty without results.

    The best of a data set is in bold, once with and once without the time of the request; in brackets stands how many
    seeds a mean is of.

    Args:
        reports: One a data set.
    """
    shown = [report for report in reports if report.rows]
    if not shown:
        return ""
    metric = shown[0].protocol.metric
    columns = [{row.title: row for row in report.rows} for report in shown]

    def place(label: str) -> tuple[bool, int, float]:
        """Trained rows first, those with the most data sets, then by their mean over them."""
        found = [row for rows in columns if (row := rows.get(label))]
        values = [row.mean("test", MAIN, metric) or 0.0 for row in found]
        return found[0].stage == REFERENCE, -len(values), -sum(values) / len(values)

    labels = sorted({label for rows in columns for label in rows}, key=place)
    pairs = list(zip(shown, columns, strict=True))
    table = [[label, *(_cell(report, rows.get(label)) for report, rows in pairs)] for label in labels]
    sentences = [f"- {report.name}: {said}\n" for report in shown if (said := verdicts(report))]
    return "\n".join([markdown_table([metric.upper(), *(report.name for report in shown)], table), "".join(sentences)])


def verdicts(report: DataReport) -> str:
    """Which rows the leading rows of GLINT-RU are better than, worse than, or not told apart from; maybe empty."""
    sentences = []
    for lead, others in report.leads:
        found: dict[str, list[str]] = {}
        for row in others:
            _, low, high = report.difference(lead, row)
            found.setdefault(verdict(low, high), []).append(row.label)
        said = "; ".join(f"{text} {', '.join(found[key])}" for key, text in SAID if key in found)
        which = "with the time of the request" if lead.knows_time else "the row of GLINT-RU that is best on validation"
        sentences.append(f"{lead.label}, {which}, is {said}.")
    return " ".join(sentences)


def _cell(report: DataReport, row: Row | None) -> str:
    if row is None:
        return "–"
    text = value_cell(row.mean("test", MAIN, report.protocol.metric))
    seeds = "" if row.stage == REFERENCE else f" ({len(row.lines)})"
    best = next(other for other in report.rows if other.knows_time == row.knows_time)
    return (f"**{text}**" if row is best else text) + row.mark + seeds

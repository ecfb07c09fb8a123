"""What this repository's comparison has found on a data set: rows, ablations, leading rows, and words about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import mean, median

from modeling_glintru.comparison.page import markdown_table, value_cell
from modeling_glintru.comparison.rows import MAIN, Report, Row, row_label, training_seconds, verdict
from modeling_glintru.comparison.trials import FINAL, FIXED, REFERENCE
from modeling_glintru.recipe import Recipe

from .protocol import ABLATION, Study, compute_alike, taken_apart

__all__ = ["BORROWED_MARK", "StudyReport", "reached_in", "short_form", "verdicts"]

BORROWED_MARK = "†"
VERDICTS = (("better", "better than"), ("worse", "worse than"), ("open", "not told apart from"))


@dataclass(frozen=True)
class StudyReport(Report):
    """The rows are those of the results files, whichever recipe a preset has by now."""

    comparison: Study

    @cached_property
    def rows(self) -> list[Row]:
        """Models, presets and references with at least one measured run, best test value first.

        A row whose own search has not run, so that it has a first look alone, has a mark.
        """
        chosen = {trial.key for step in self.steps if step.stage == FINAL for trial in step.trials}
        rows = [*self.rows_of(FINAL, chosen), *self.rows_of(FIXED), *self.rows_of(REFERENCE)]
        searched = {row.name for row in rows}
        looks = {key for key, line in self.lines.items() if line.get("setting_of") and line["row"] not in searched}
        return self.by_value([*rows, *(replace(row, mark=BORROWED_MARK) for row in self.rows_of(FINAL, looks))])

    @property
    def compared(self) -> list[Row]:
        """Rows and ablations."""
        return [*self.rows, *self.ablations]

    @cached_property
    def ablations(self) -> list[Row]:
        """Those of the rows' settings as they are now, in the order of the protocol, the others after them."""
        order = list(self.comparison.protocol.ablations)

        def place(row: Row) -> tuple[str, int]:
            base, change = parts(row)
            return base, order.index(change) if change in order else len(order)

        return sorted(filter(self._is_current, self.rows_of(ABLATION)), key=place)

    def base(self, ablation: Row) -> Row | None:
        """The row that an ablation takes apart; None where it has not run."""
        return next((row for row in self.rows if row.name == parts(ablation)[0]), None)

    def _is_current(self, ablation: Row) -> bool:
        """Whether an ablation takes its row's setting apart as it is now, and not one that the row had before."""
        row, overrides = self.base(ablation), self.comparison.protocol.ablations.get(parts(ablation)[1])
        if row is None or overrides is None:
            return True
        now, then = (Recipe.from_dict(lines[0]["recipe"]) for lines in (row.lines, ablation.lines))
        due = taken_apart(now, overrides)
        if due is None:
            return False
        return compute_alike(replace(then, data=due.data, model=due.model, training=due.training), then)

    @cached_property
    def leads(self) -> list[tuple[Row, list[Row]]]:
        """The row of GLINT-RU that is best on validation, and those that it is compared with; maybe empty.

        Rows that see the time of the request have a lead of their own, which is compared with all; the other lead is
        compared with the rows that see no more than it does.
        """
        found = []
        for knows_time in (False, True):
            ours = [row for row in self.rows if row.model == "glintru" and row.knows_time == knows_time]
            if ours:
                lead = max(ours, key=lambda row: row.mean("validation", MAIN, self.metric) or 0)
                seen = [row for row in self.rows if row is not lead and (knows_time or not row.knows_time)]
                found.append((lead, seen))
        return [(lead, others) for lead, others in found if others]


def parts(ablation: Row) -> tuple[str, str]:
    """The row that an ablation takes apart, and what it changes, as the protocol calls it."""
    base, _, change = ablation.name.partition(": ")
    return base, change


def base_label(ablation: Row) -> str:
    """The row that an ablation takes apart, for people."""
    return row_label(parts(ablation)[0], ablation.model)


def reached_in(report: Report, lead: Row, others: list[Row]) -> str:
    """A sentence on the training time after which `lead` was as good on validation as the best of the others became.

    Only rows that were timed on the same machine and see the same are looked at. The sentence is empty where the lead
    never was as good, or where there is no such row.
    """
    metric = report.metric
    trained = [row for row in others if row.stage != REFERENCE]
    alike = [row for row in trained if (row.knows_time, row.machine) == (lead.knows_time, lead.machine)]
    runner_up = max(alike, key=lambda row: row.mean("validation", MAIN, metric) or 0, default=None)
    if runner_up is None:
        return ""
    goal = mean(max(point[metric] for point in line["curve"]) for line in runner_up.lines)
    passed = [_seconds_to(line, metric, goal) for line in lead.lines]
    if any(seconds is None for seconds in passed):
        return ""
    taken = median(seconds for seconds in passed if seconds is not None)
    return (
        f"On validation {lead.label} passed the best of {runner_up.label} ({goal:.4f}) after {taken:,.0f} s of its "
        f"{lead.seconds:,.0f}; {runner_up.label} was trained for {runner_up.seconds:,.0f} s.\n"
    )


def _seconds_to(line: dict, metric: str, goal: float) -> float | None:
    """Training time until the end of the first epoch that is as good; None where none is."""
    epoch = next((point["epoch"] for point in line["curve"] if point[metric] >= goal), None)
    return None if epoch is None else training_seconds(line) * epoch / line["epochs_run"]


def short_form(reports: Sequence[StudyReport]) -> str:
    """One table with a column for each data set, and a sentence for each; empty without results.

    The best of a data set is in bold, once with and once without the time of the request; in brackets stands how many
    seeds a mean is of.

    Args:
        reports: One a data set.
    """
    shown = [report for report in reports if report.rows]
    if not shown:
        return ""
    metric = shown[0].metric
    columns = [{row.title: row for row in report.rows} for report in shown]

    def place(label: str) -> tuple[bool, int, float]:
        """Trained rows first, those with the most data sets, then by their mean over them."""
        found = [row for rows in columns if (row := rows.get(label))]
        values = [row.mean("test", MAIN, metric) or 0.0 for row in found]
        return found[0].stage == REFERENCE, -len(values), -sum(values) / len(values)

    labels = sorted({label for rows in columns for label in rows}, key=place)
    pairs = list(zip(shown, columns, strict=True))
    table = [[label, *(_cell(report, rows.get(label)) for report, rows in pairs)] for label in labels]
    sentences = [f"- {report.name}: {words}\n" for report in shown if (words := verdicts(report))]
    return "\n".join([markdown_table([metric.upper(), *(report.name for report in shown)], table), "".join(sentences)])


def verdicts(report: StudyReport) -> str:
    """Which rows the leading rows of GLINT-RU are better than, worse than, or not told apart from; maybe empty."""
    sentences = []
    for lead, others in report.leads:
        found: dict[str, list[str]] = {}
        for row in others:
            _, low, high = report.difference(lead, row)
            found.setdefault(verdict(low, high), []).append(row.label)
        words = "; ".join(f"{text} {', '.join(found[key])}" for key, text in VERDICTS if key in found)
        which = "with the time of the request" if lead.knows_time else "the row of GLINT-RU that is best on validation"
        sentences.append(f"{lead.label}, {which}, is {words}.")
    return " ".join(sentences)


def _cell(report: StudyReport, row: Row | None) -> str:
    if row is None:
        return "–"
    text = value_cell(row.mean("test", MAIN, report.metric))
    seeds = "" if row.stage == REFERENCE else f" ({len(row.lines)})"
    best = next(other for other in report.rows if other.knows_time == row.knows_time)
    return (f"**{text}**" if row is best else text) + row.mark + seeds

"""Outcomes of tests, from the reports that pytest, GoogleTest and CTest write."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MESSAGE_LENGTH = 500  # characters of a failure that are repeated at the end


@dataclass
class Counts:
    """Outcomes of tests, with a line for each failure."""

    passed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, other: Counts) -> None:
        """Add the outcomes of another run."""
        self.passed += other.passed
        self.skipped += other.skipped
        self.failures += other.failures

    def add_case(self, case: ET.Element) -> None:
        """Add a test case of a report."""
        found = case.find("failure")
        found = case.find("error") if found is None else found
        if found is not None:
            message = (found.get("message") or found.text or "").strip()[:MESSAGE_LENGTH]
            name = f"{case.get('classname', '')} {case.get('name', '')}"
            self.failures.append(f"{name}: {message}")
        elif case.find("skipped") is not None or case.get("status") in {"disabled", "notrun"}:
            self.skipped += 1
        else:
            self.passed += 1


def cases_of(report: Path) -> list[ET.Element]:
    """List the test cases of a report; none where it was not written."""
    if not report.exists():
        return []
    return list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314 - our own report


def read_junit(report: Path, *, succeeded: bool) -> Counts:
    """Count the test cases of a report; a run that failed without one counts as a failure."""
    counts = Counts()
    for case in cases_of(report):
        counts.add_case(case)
    if not succeeded and not counts.failures:
        counts.failures.append(f"{report.stem}: no test is reported as failed, but the run is")
    return counts


def read_ctest(report: Path, folder: Path, *, succeeded: bool) -> Counts:
    """Count the tests of CTest, of which some are processes with a GoogleTest report each.

    A process that failed without a failed test in its report ended by itself: at a signal, or by
    a sanitizer.
    """
    counts = Counts()
    for case in cases_of(report):
        inner = read_junit(folder / f"{case.get('name')}.xml", succeeded=True)
        outer = Counts()
        outer.add_case(case)
        has_cases = inner.passed or inner.skipped or inner.failures
        counts.add(inner if has_cases and bool(inner.failures) == bool(outer.failures) else outer)
    if not succeeded and not counts.failures:
        counts.failures.append(f"{report.stem}: no test is reported as failed, but the run is")
    return counts

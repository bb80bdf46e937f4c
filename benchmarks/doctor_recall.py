"""Precision and recall of every rule of the doctor: clean sets, and faults planted in them.

    python -m benchmarks.doctor_recall --sets /tmp/clean_sets --page docs/doctor-recall.md

simulates the clean sets (minutes), plants each fault at each of its strengths in several of them,
validates, prints one line a rule, and writes benchmarks/doctor_recall.json and the page.
"""

import argparse
import json
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from benchmarks.clean_sets.sets import SETS
from data_tools.doctor.checks.catalogue import RULES
from data_tools.doctor.examination import validate
from data_tools.doctor.planting.plant import FAULTS, NOT_PLANTED, plant
from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset

RESULTS: Final = Path(__file__).with_suffix(".json")
NUM_SETS: Final = 4
MAX_TRIES: Final = 12
WIDTH: Final = 136
NO_PLACE: Final = "no clean set has a place for it"

Json = dict[str, Any]


@dataclass
class Measured:
    """What planting one fault showed.

    Attributes:
        rule: its name.
        found: strength ('' where there is none) -> of how many sets it was found in how many.
        misled: other rules that spoke, and may not, each with how often.
        misplaced: findings of this rule that name an episode without the fault.
    """

    rule: str
    found: dict[str, tuple[int, int]] = field(default_factory=dict)
    misled: Counter[str] = field(default_factory=Counter)
    misplaced: int = 0


def measure(rule: str, folder: Path, first: int) -> Measured:
    """Plant one fault at each of its strengths in the sets that have a place for it."""
    fault, measured = FAULTS[rule], Measured(rule)
    values = (None,) if fault.strength is None else fault.strength.values
    for strength in values:
        num_found = num_planted = 0
        for step in range(MAX_TRIES):
            place = folder / f"{(first + 5 * step) % len(SETS):02d}"
            found = _found(rule, place, strength, first + step)
            if found is None:
                continue
            is_found, misplaced, others = found
            num_planted += 1
            num_found += is_found
            measured.misplaced += misplaced
            measured.misled.update(others)
            if num_planted == NUM_SETS:
                break
        if num_planted:
            measured.found["" if strength is None else f"{strength:g}"] = num_found, num_planted
    return measured


def _found(
    rule: str, source: Path, strength: float | None, seed: int
) -> tuple[bool, int, list[str]] | None:
    """Whether the fault is found, how often elsewhere, and which rules may not speak; else None."""
    fault = FAULTS[rule]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "planted"
        try:
            planted = plant(rule, source, out, strength=strength, seed=seed)
        except UserError as error:
            if "expected a place for" in str(error):
                return None
            raise
        findings = validate(open_dataset(out, allow_undeclared=True), deep=fault.is_deep)
    names = {each.episode for each in planted}
    mine = [each for each in findings if each.rule == rule]
    elsewhere = [
        each
        for each in mine
        if fault.scope == "one"
        and "" not in names
        and "demo_" in each.where
        and each.where not in names
    ]
    others = [each.rule for each in findings if each.rule not in {rule, *fault.also}]
    return len(mine) > len(elsewhere), len(elsewhere), others


def write_sets(folder: Path) -> None:
    """Every clean set that is not there yet, each in a folder of its own."""
    for number, each in enumerate(SETS):
        place = folder / f"{number:02d}"
        if not place.exists():
            place.mkdir(parents=True)
            each.write(place / "demos.hdf5")


def clean_findings(folder: Path) -> Counter[str]:
    """Findings on the clean sets as they are, by rule."""
    return Counter(
        finding.rule
        for number in range(len(SETS))
        for finding in validate(open_dataset(folder / f"{number:02d}"), deep=True)
    )


def results(folder: Path, workers: int) -> Json:
    """Everything measured, in values that JSON keeps."""
    false_alarms = clean_findings(folder)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        numbers = range(len(FAULTS))
        measured = list(pool.map(measure, FAULTS, repeat(folder), numbers))
    wrong = Counter(false_alarms)
    for each in measured:
        wrong.update(each.misled)
        wrong[each.rule] += each.misplaced
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "num_sets": len(SETS),
        "false_alarms": dict(false_alarms),
        "wrong": {rule: count for rule, count in wrong.items() if count},
        "misled": {each.rule: dict(each.misled) for each in measured if each.misled},
        "rules": {each.rule: asdict(each)["found"] for each in measured},
    }


def page(told: Json) -> str:
    """The page about precision and recall, in Markdown."""
    found, wrong = told["rules"], told["wrong"]
    alarms = sum(told["false_alarms"].values())
    episodes = sum(each.episodes for each in SETS)
    paragraphs = (
        "Generated by `python -m benchmarks.doctor_recall --sets /tmp/clean_sets --page "
        f"docs/doctor-recall.md`, measured on {told['date']}; do not edit.",
        f"{told['num_sets']} clean sets ({episodes} episodes; `benchmarks/clean_sets`) are "
        "simulated and filmed: arms with displacements, targets, speeds, fingers, two arms, mobile "
        "bases, 5 to 100 Hz, tremor, pauses, tasks that wait, light that fades, rooms that change. "
        f"On them all rules together have {alarms} findings. `robot-data plant` then plants each "
        "fault, at a weak, a plain and a strong value of its strength, in up to "
        f"{NUM_SETS} of the sets that have a place for it.",
        "*Recall* is in how many of these the rule of that name speaks, of the right episode. "
        "*Precision* is the share of right findings among all of the rule, on clean and on planted "
        "sets; consequences that a fault names (a jump is also an outlier) do not count. With "
        f"{NUM_SETS} sets a share says little between 2 and {NUM_SETS}: what it shows is which "
        "strengths a rule sees. Where controllers, scenes and operators hide a fault, a rule says "
        "nothing rather than something wrong. Real data is harder than simulated data.",
    )
    head = "# How often the doctor is right\n\n"
    head += "".join(
        f"{textwrap.fill(each, WIDTH, break_on_hyphens=False)}\n\n" for each in paragraphs
    )
    head += "| rule | strength | recall | precision |\n| --- | --- | --- | --- |\n"
    return head + "".join(_row(rule, found, wrong) for rule in RULES)


def _row(rule: str, found: Mapping[str, Mapping[str, list[int]]], wrong: Mapping[str, int]) -> str:
    counts = found.get(rule)
    if not counts:
        return f"| {rule} | | not measured: {NOT_PLANTED.get(rule, NO_PLACE)} | |\n"
    strength = FAULTS[rule].strength
    meaning = "" if strength is None else strength.meaning.replace("|", "/")
    recall = ", ".join(
        f"{value}: {right} of {all_}" if value else f"{right} of {all_}"
        for value, (right, all_) in counts.items()
    )
    right = sum(each[0] for each in counts.values())
    told = right + wrong.get(rule, 0)
    precision = f"{right / told:.0%}" if told else "-"
    return f"| {rule} | {meaning} | {recall} | {precision} |\n"


def lines(told: Json) -> Iterator[str]:
    """The table of the page, for a terminal."""
    yield from (line for line in page(told).splitlines() if line.startswith("| "))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--sets",
        type=Path,
        help="folder of the clean sets; if not given, the "
        "page is written from what was measured last",
    )
    parser.add_argument("--page", type=Path, required=True, help="page to write")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    chosen = parser.parse_args()
    if chosen.sets is not None:
        write_sets(chosen.sets)
        told = results(chosen.sets, chosen.workers)
        RESULTS.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    told = json.loads(RESULTS.read_text(encoding="utf-8"))
    chosen.page.write_text(page(told), encoding="utf-8")
    sys.stdout.write("\n".join(lines(told)) + "\n")


if __name__ == "__main__":
    main()

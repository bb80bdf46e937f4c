"""Episodes held against their siblings: what is kept of each, and what is odd about one of them."""

from collections.abc import Iterator, Mapping

from data_tools.doctor.checks import delays, pauses, tremor, twins
from data_tools.doctor.checks.recording import NO_RATE, Declared, Recording
from data_tools.finding import DATASET, Told, not_checked

RULES = (*pauses.RULES, *tremor.RULES, *delays.RULES, *twins.RULES)


class Siblings:
    """Keeps a few numbers of each episode, and tells which episodes are unlike the others.

    Args:
        declared: what the dataset declares about every episode's columns.
    """

    def __init__(self, declared: Declared) -> None:
        self._declared = declared
        self._pauses: list[tuple[str, str, pauses.Pause]] = []
        self._shakings: dict[str, Mapping[str, float]] = {}
        self._lags: dict[str, delays.LagCurve] = {}
        self._summaries: list[twins.Summary] = []

    def look_at(self, recording: Recording, digest: bytes) -> None:
        """One episode of finite numbers.

        Args:
            recording: the episode.
            digest: a hash of all its numbers.
        """
        name = recording.name
        pause = pauses.longest_pause(recording, self._declared)
        if pause is not None:
            self._pauses.append((name, recording.labels.instruction, pause))
        shakings = tremor.shaking(recording, self._declared)
        if shakings is not None:
            self._shakings[name] = shakings
        curve = delays.LagCurve.of(recording, self._declared)
        if curve is not None:
            self._lags[name] = curve
        self._summaries.append(twins.Summary.of(recording, digest))

    def check(self) -> Iterator[Told]:
        """Long pauses, shaking, another delay, and one demonstration twice."""
        if self._pauses:
            yield from pauses.check_pauses(self._declared, self._pauses)
        else:
            why = "no state column is known as an angle or a position"
            rate = self._declared.control_hz
            yield not_checked(DATASET, why if rate else NO_RATE, *pauses.RULES)
        yield from tremor.check_shaking(self._declared, self._shakings)
        yield from delays.check_lags(self._declared, self._lags)
        yield from twins.check_twins(self._summaries)

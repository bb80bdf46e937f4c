"""Frames of LeRobot videos by the numbers of their steps, where recorded times lead to others."""

from collections.abc import Sequence

from data_tools.episode import Dataset, frame_doubts
from data_tools.errors import describe, raise_faults
from data_tools.finding import Finding
from data_tools.formats.lerobot import LeRobotDataset
from data_tools.rules import WRONG_CLOCK


def by_frame_number(dataset: Dataset, findings: Sequence[Finding]) -> Dataset:
    """The dataset with a wrong clock mended, if that was found; else as it is.

    Where a video holds one frame a step, as the format demands, the frame of a step's number is
    its own, and times that say otherwise are no more than wrong.

    Raises:
        UserError: a video holds another number of frames than its episodes have steps.
    """
    is_wrong = any(finding.rule == WRONG_CLOCK.name for finding in findings)
    if not is_wrong or not isinstance(dataset, LeRobotDataset):
        return dataset
    numbered = dataset.by_frame_number()
    raise_faults(
        describe(doubt.place, doubt.value, doubt.threshold, doubt.remedy, doubt.rule)
        for index in range(len(numbered))
        for doubt in frame_doubts(numbered[index]).values()
    )
    return numbered

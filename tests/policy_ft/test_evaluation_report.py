"""The report page: complete, self-contained, escaped; its videos play."""

import base64
import io
import re

import av
import numpy as np
import pytest

from data_tools.episode import Observation
from data_tools.storage.frames.videos import encode_mp4
from policy_ft.evaluation.plots import loss_curves, success_bars
from policy_ft.evaluation.report import Report, Table, Video, render_report, verdict, write_report
from policy_ft.evaluation.statistics import compare_paired, success_rate
from policy_ft.evaluation.videos import side_by_side

BASE, TUNED = [False] * 45 + [True] * 5, [False] * 8 + [True] * 42


def frames(count: int) -> list[np.ndarray]:
    gradient = np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None].repeat(48, 0).repeat(3, 2)
    return [np.roll(gradient, 4 * shift, axis=1) for shift in range(count)]


def report(**changes: object) -> Report:
    rates = {"base": success_rate(BASE), "fine-tuned": success_rate(TUNED)}
    rows = [{"train_step": step, "kind": "train", "loss": 1 / step} for step in range(1, 9)]
    values = {
        "title": "Fine-tuning 'place'",
        "summary": "From 10 to 84 %.",
        "rates": rates,
        "comparison": compare_paired(BASE, TUNED),
        "compared": ("base", "fine-tuned"),
        "figures": {
            "Success": success_bars(rates),
            "Loss": loss_curves(rows, {"train": "training", "validation": "validation"}),
        },
        "tables": [Table("Base tasks", ("family", "before"), [("reach", "98 %")])],
        "videos": {"Fine-tuned": [Video("seed 7", True, encode_mp4(frames(6), 10.0))]},
        "settings": "seed: 0\n",
        "provenance": {"command": "policy-ft quickstart"},
    }
    return Report(**{**values, **changes})


def test_page_shows_every_part_of_the_report() -> None:
    page = render_report(report())
    for text in (
        "From 10 to 84 %.",
        "71 to 92 %",
        "50 episodes",
        "reach",
        "seed 7",
        "seed: 0",
        "policy-ft quickstart",
        "better than the base policy by 74 points",
    ):
        assert text in page
    assert page.count("data:image/svg+xml;base64,") == 2


def test_page_asks_the_network_for_nothing() -> None:
    page = render_report(report())
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']{5})""", page)
    assert sources
    assert set(sources) == {"data:"}
    assert "url(" not in page
    assert "@import" not in page
    assert "<script" not in page


def test_text_of_users_is_escaped() -> None:
    page = render_report(report(settings="<script>alert(1)</script>", title="a < b"))
    assert "<script" not in page
    assert "a &lt; b" in page


def test_embedded_video_holds_every_frame() -> None:
    page = render_report(report())
    (video,) = re.findall(r"data:video/mp4;base64,([A-Za-z0-9+/=]+)", page)
    with av.open(io.BytesIO(base64.b64decode(video))) as container:
        stream = container.streams.video[0]
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert (stream.codec_context.name, float(stream.average_rate)) == ("h264", 10.0)
    assert len(decoded) == 6
    error = np.abs(np.stack(decoded).astype(int) - np.stack(frames(6)))
    assert error.mean() < 6  # lossy, but the same picture


def test_cameras_stand_side_by_side_magnified() -> None:
    front, wrist = np.full((4, 5, 3), 10, np.uint8), np.full((2, 3, 3), 20, np.uint8)
    observation = Observation({"front": front, "wrist": wrist}, np.zeros(1, np.float32), "")
    image = side_by_side(observation)
    assert image.shape == (12, 24, 3)
    assert (image[:, :15] == 10).all()
    assert (image[:6, 15:] == 20).all()
    assert (image[6:, 15:] == 0).all()
    assert side_by_side(Observation({"front": front}, np.zeros(1, np.float32), "")).shape == (
        12,
        16,
        3,
    )


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (BASE, TUNED, "The fine-tuned policy is better than the base policy by 74 points"),
        (TUNED, BASE, "The fine-tuned policy is worse than the base policy by 74 points"),
        (BASE, BASE, "not more than chance explains"),
    ],
)
def test_verdict_says_better_only_when_chance_is_excluded(
    first: list[bool], second: list[bool], words: str
) -> None:
    assert words in verdict(compare_paired(first, second), ("base", "fine-tuned"))


def test_report_is_written_as_one_file(tmp_path) -> None:
    write_report(report(), tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")

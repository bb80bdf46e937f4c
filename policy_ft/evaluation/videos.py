"""Videos of finished episodes, made by running their recorded actions again.

During a rollout images are rendered only where the policy looks. An episode is a function of its
seed and its actions, so the chosen ones are played once more with every frame rendered.
"""

import numpy as np
import numpy.typing as npt

from data_tools.episode import Observation
from data_tools.storage.frames.videos import encode_mp4
from eval_envs.episodes import EpisodeSpec
from eval_envs.playing import Look
from eval_envs.pool import Pool
from policy_ft.errors import UserError, describe
from policy_ft.evaluation.report import Video
from policy_ft.evaluation.results import EpisodeRecord, EvaluationResult

NUM_EACH = 3
"""Successes and failures to film, at most."""

_SCALE = 3
_STILL_S = 0.7

Frame = npt.NDArray[np.uint8]


def choose_episodes(result: EvaluationResult, num_each: int = NUM_EACH) -> list[int]:
    """Places of the first `num_each` successes and the first `num_each` failures, in that order.

    Episodes that were lost with their simulator are neither.
    """
    ended = [index for index, episode in enumerate(result.episodes) if episode.lost is None]
    chosen = [
        [index for index in ended if result.episodes[index].success is wanted]
        for wanted in (True, False)
    ]
    return [index for indices in chosen for index in indices[:num_each]]


def require_cameras(pool: Pool, spec: EpisodeSpec) -> None:
    """UserError for an environment that has no camera to film with.

    One that is lost before it says so is left to the evaluation to tell of.
    """
    pool.begin(0, spec)
    for _, look in pool.answers():
        if isinstance(look, Look) and look.conventions and not look.conventions.cameras:
            remedy = "Leave --video out; --json writes every episode."
            where = f"environment {spec.env_id}"
            raise UserError(describe(where, "no camera", "one to film", remedy))


def film(result: EvaluationResult, pool: Pool, num_each: int = NUM_EACH) -> list[Video]:
    """Videos of the first successes and failures, all cameras side by side, in real time.

    Args:
        result: holds the actions of the episodes to film.
        pool: where the actions are executed again, in the first place.
        num_each: episodes of either kind, at most.

    Raises:
        UserError: an episode that ends otherwise when it is repeated.
    """
    return [_film_one(result, pool, index) for index in choose_episodes(result, num_each)]


def _film_one(result: EvaluationResult, pool: Pool, index: int) -> Video:
    episode, actions = result.episodes[index], result.actions[index]
    if actions is None:
        raise UserError(_not_repeated(episode, "no actions of it"))
    pool.begin(0, episode.spec, look_at_end=True)
    looks = [_only_look(pool, episode)]
    assert looks[0].conventions is not None
    rate = looks[0].conventions.known_control_hz("film an episode")
    for action in actions:
        pool.execute(0, action[None])
        looks.append(_only_look(pool, episode))
    _require_same_end(episode, found=any(look.success for look in looks))
    frames = [side_by_side(look.observation) for look in looks]
    frames += frames[-1:] * round(_STILL_S * rate)
    caption = f"{episode.instruction} (seed {episode.seed}, {episode.num_steps} steps)"
    return Video(caption, episode.success, encode_mp4(frames, rate))


def _only_look(pool: Pool, episode: EpisodeRecord) -> Look:
    ((_, answer),) = pool.answers()
    if isinstance(answer, Look):
        return answer
    raise UserError(_not_repeated(episode, answer.error))


def _not_repeated(episode: EpisodeRecord, found: str) -> str:
    where = f"{episode.env_id}, repeating the actions of seed {episode.seed}"
    remedy = "Evaluate without videos: this simulator did not bring it to an end again."
    return describe(where, found, "the episode again", remedy)


def side_by_side(observation: Observation) -> Frame:
    """The observation's cameras next to each other, uint8[y, x, 3], each pixel repeated 3 x 3.

    Cameras of different height are aligned at the top on black; sides are even, as video coding
    wants.
    """
    images = list(observation.images.values())
    height, width = max(image.shape[0] for image in images), sum(image.shape[1] for image in images)
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    left = 0
    for image in images:
        canvas[: image.shape[0], left : left + image.shape[1]] = image
        left += image.shape[1]
    canvas = canvas.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
    return np.pad(canvas, ((0, canvas.shape[0] % 2), (0, canvas.shape[1] % 2), (0, 0)))


def _require_same_end(episode: EpisodeRecord, *, found: bool) -> None:
    if found is not episode.success:
        raise UserError(
            describe(
                f"{episode.env_id}, repeating the actions of seed {episode.seed}",
                f"success {found}",
                f"{episode.success}, as in the evaluation",
                "Evaluate without videos: this environment is not a function of seed and actions.",
            )
        )

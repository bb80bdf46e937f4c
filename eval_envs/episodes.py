"""What an evaluation is made of: episodes, each fully named, in an order."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue, StrictInt, ValidationError

from data_tools.declaration import Declaration, dotted, refusals
from data_tools.errors import UserError, describe, raise_faults


def _finite(env_args: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        json.dumps(env_args, allow_nan=False)
    except ValueError:
        raise ValueError(f"finite numbers, which JSON can hold, not {env_args}") from None
    return env_args


class EpisodeSpec(Declaration):
    """One episode: an environment, how it is made, and the seed that decides everything random.

    A suite is a sequence of them. Its episodes may be of different environments, with images of
    different sizes, and of any length.
    """

    env_id: str = Field(description="Gymnasium id with its module, e.g. 'eval_envs:Tabletop-v0'.")
    env_args: Annotated[dict[str, JsonValue], AfterValidator(_finite)] = Field(
        default_factory=dict, description="Keyword arguments of gymnasium.make."
    )
    seed: StrictInt = Field(ge=0, lt=2**63, description="Seed the environment is reset with.")
    tags: dict[str, str] = Field(
        default_factory=dict,
        description="What to group results by: suite, task, perturbation; the environment does "
        "not see them.",
    )


def seeded_suite(
    env_id: str,
    env_args: Mapping[str, JsonValue],
    seeds: Iterable[int],
    tags: Mapping[str, str] | None = None,
) -> tuple[EpisodeSpec, ...]:
    """The usual suite: one environment, an episode a seed, in the order of the seeds.

    Raises:
        UserError: no seed, one that repeats or is below 0, or an argument that JSON cannot hold.
    """
    listed = list(seeds)
    if not listed or len(set(listed)) < len(listed) or min(listed) < 0:
        found, expected = repr(listed), "at least one seed, each at least 0 and given once"
        remedy = "Give a different seed to every episode."
        raise_faults([describe("seeds", found, expected, remedy)])
    said = {"env_id": env_id, "env_args": dict(env_args), "tags": dict(tags or {})}
    try:
        return tuple(EpisodeSpec.model_validate({**said, "seed": seed}) for seed in listed)
    except ValidationError as error:
        raise UserError(refusals(error.errors(include_url=False), EpisodeSpec, dotted)) from None


def require_distinct(suite: Sequence[EpisodeSpec]) -> None:
    """UserError for a suite without episodes, or with one that stands in it twice.

    Tags make no other episode: counted twice, it would narrow the interval of the success rate for
    nothing.
    """
    raise_faults(_repetitions(suite))


def _repetitions(suite: Sequence[EpisodeSpec]) -> Iterator[str]:
    if not suite:
        yield describe("suite", "no episode", "at least one", "Give it episodes.")
    first: dict[str, int] = {}
    for place, spec in enumerate(suite):
        earlier = first.setdefault(spec.model_dump_json(exclude={"tags"}), place)
        if earlier != place:
            found = f"the episode of place {earlier} again (seed {spec.seed} of {spec.env_id})"
            remedy = "Give it another seed, or leave it out."
            yield describe(f"suite, place {place}", found, "each episode once", remedy)

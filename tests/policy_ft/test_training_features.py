"""Features of a frozen backbone may be kept: the run computes what it does without them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from data_tools.formats.reader import open_dataset
from policy_ft import assemble
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.config.model import ExpertConfig, TimmVisionConfig
from policy_ft.config.optimizer import OptimizerConfig
from policy_ft.config.training import TrainingConfig
from policy_ft.config.tuning import GroupRule
from policy_ft.errors import UserError
from policy_ft.models.inputs import ModelInput
from policy_ft.models.prefix import Prefix
from policy_ft.models.vla import VLAModel
from policy_ft.objectives.flow import Flow
from policy_ft.training.features import FeatureCache, build_feature_cache
from policy_ft.training.hooks import Hook
from policy_ft.tuning.groups import plan_groups
from tests.policy_ft.losses import flow_errors

FROZEN_TOWER = ("vision", "projector")
FROZEN_BACKBONE = ("vision", "projector", "language")
STATE_IN_PREFIX = {"expert": ExpertConfig(width=24, mlp_width=40, state_token="prefix")}


class Watch(Hook):
    """A hook that counts the images the tower saw in each step, and can stop the run."""

    name = "watch"

    def __init__(self, stop_after: int | None = None) -> None:
        self.images: list[int] = []
        self._stop_after, self._so_far = stop_after, 0

    def count(self, module: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self._so_far += len(args[0])

    def after_step(self, train_step: int) -> dict[str, float]:
        self.images.append(self._so_far)
        self._so_far = 0
        if train_step == self._stop_after:
            raise KeyboardInterrupt
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state) -> None:
        pass


@pytest.fixture
def cached_config(run_config, small_model, tmp_path):
    """A run of 16 steps of 4 windows, more than three epochs, with frozen groups and a cache."""

    def make(name: str, frozen=FROZEN_TOWER, gb=1.0, model=None, training=None):
        return run_config(
            policy={"model": small_model(**(model or {}))},
            tuning={"groups": [{"pattern": each, "frozen": True} for each in frozen]},
            training={"steps": 16, "log_every": 1, "feature_cache_gb": gb, **(training or {})},
            validation={"every": 16},
            output_dir=str(tmp_path / name),
        )

    return make


def run(config, *, resume: bool = False, watch: Watch | None = None):
    """Trains; the records, the gradients of all steps, and where the run ended."""
    episodes = open_dataset(list(config.data.path))
    policy = assemble.build_policy(config, episodes)
    gradients: list[Tensor] = []
    for parameter in policy.model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: gradients.append(p.grad.clone()))
    watch = watch or Watch()
    policy.model.backbone.vision.register_forward_hook(watch.count)
    result = assemble.train(config, policy, episodes, resume=resume, methods=[watch])
    return result, gradients


def steps_of(result) -> list[dict[str, float]]:
    return [row for row in result.metrics if row["kind"] == "train"]


@pytest.mark.parametrize(
    ("frozen", "model"),
    [
        (FROZEN_TOWER, {}),
        (FROZEN_BACKBONE, {}),
        ((*FROZEN_TOWER, "language.embed"), {"film": True}),
        (FROZEN_BACKBONE, STATE_IN_PREFIX),
        ((*FROZEN_BACKBONE, "heads.state_in"), STATE_IN_PREFIX),
    ],
    ids=["tower", "backbone", "film", "state_learns", "state_frozen"],
)
def test_losses_and_gradients_are_those_without_a_cache(cached_config, frozen, model):
    if model.pop("film", False):
        model["vision"] = with_film()
    watches = {gb: Watch() for gb in (0.0, 1.0)}
    runs = {
        gb: run(
            cached_config(f"run_{gb}", frozen, gb, model, {"deterministic": False}), watch=watch
        )
        for gb, watch in watches.items()
    }
    (plain, expected), (cached, found) = runs[0.0], runs[1.0]
    for name in ("loss", "grad_norm"):
        ours, theirs = ([row[name] for row in steps_of(result)] for result in (cached, plain))
        assert ours == pytest.approx(theirs, rel=1e-5)
    scale = max(gradient.abs().max() for gradient in expected)
    assert len(found) == len(expected) > 0
    assert all((a - b).abs().max() <= 1e-5 * scale for a, b in zip(found, expected, strict=True))
    assert min(watches[0.0].images) == 8, "two cameras of four windows"
    assert watches[1.0].images[0] == 8
    assert watches[1.0].images[-8:] == [0] * 8, "every window was seen by then"
    assert [row["feature_cache_hits"] for row in steps_of(cached)][-8:] == [1.0] * 8


def with_film() -> TimmVisionConfig:
    tower = {"norm_layer": "groupnorm1", "channels": [32] * 4, "stem_chs": 32, "layers": [1] * 4}
    return TimmVisionConfig(tower="resnetv2_18", tower_args=tower, feature_level=3, film=True)


def bits(result) -> dict[str, str]:
    files = [
        result.last_checkpoint / "model.safetensors",
        *(result.last_checkpoint / "training_state").glob("*.safetensors"),
    ]
    return {file.name: weights_hash(load_file(file)) for file in files}


def test_a_resumed_run_starts_with_an_empty_cache_and_ends_in_the_same_bits(cached_config):
    training = {"save_every": 7}
    whole, _ = run(cached_config("whole", training=training))
    config, watch = cached_config("broken", training=training), Watch()
    with pytest.raises(KeyboardInterrupt):
        run(config, watch=Watch(stop_after=9))
    resumed, _ = run(config, resume=True, watch=watch)
    assert watch.images[0] == 8, "the first step after the kill found nothing kept"
    assert bits(resumed) == bits(whole)


def test_a_cache_too_small_for_all_windows_changes_nothing_but_the_time(cached_config):
    results = {}
    for gb in (1.0, 5e-6):
        result, _ = run(cached_config(f"run_{gb}", gb=gb))
        results[gb] = bits(result)
    hits = [row["feature_cache_hits"] for row in steps_of(result)][-8:]
    assert 0 < sum(hits) < len(hits)
    assert results[1.0] == results[5e-6]


def test_a_run_goes_on_with_another_cache(cached_config):
    config = cached_config("run", gb=0.0, training={"steps": 2})
    run(config)
    result, _ = run(cached_config("run"), resume=True)
    assert Path(result.last_checkpoint).name == "step_00000016"


@pytest.mark.parametrize(
    ("frozen", "film", "learning"),
    [
        ((), False, "backbone.image_positions"),
        (("vision",), False, "backbone.image_positions"),
        (("projector",), False, "backbone.vision"),
        (FROZEN_TOWER, True, "backbone.language.embed_tokens.weight"),
    ],
)
def test_what_depends_on_something_that_learns_is_not_cached(cached_config, frozen, film, learning):
    model = {"vision": with_film()} if film else {}
    config = cached_config("run", frozen, model=model)
    with pytest.raises(UserError, match=r"set training.feature_cache_gb to 0\.") as caught:
        run(config)
    assert learning in str(caught.value)
    assert any(learning in fault for fault in assemble.check(config))


def plan(model: VLAModel, *frozen: str):
    rules = [GroupRule(pattern=each, frozen=True) for each in frozen]
    return plan_groups(model, rules, OptimizerConfig(), Flow().reaches(model))


def shuffled(inputs: ModelInput, index: list[int]) -> ModelInput:
    tensors = ("images", "image_mask", "prompt_tokens", "prompt_mask", "state")
    return replace(inputs, **{name: getattr(inputs, name)[index] for name in tensors})


@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("feature", ["prefix", "image_tokens"])
def test_absent_cameras_and_ragged_prompts_are_padded_again(golden, family, one_by_one, feature):
    """Each window is kept out of one batch and used in another, beside other neighbours."""
    case = golden(family)
    cache = FeatureCache(case.model.backbone, feature, 1e9, one_by_one=one_by_one)
    mask = case.inputs.prompt_mask
    assert len(set(mask.sum(dim=1).tolist())) > 1
    assert not case.inputs.image_mask.all()
    everyone = list(range(case.inputs.batch_size))
    for rows in (everyone[:1], everyone[::-1], everyone, [0, 0, *everyone]):
        inputs = shuffled(case.inputs, rows)
        noise = torch.randn(len(rows), *case.model.action_shape)
        kept = cache(inputs, rows)
        assert isinstance(kept, Prefix) == (feature == "prefix")
        with torch.no_grad():
            time = torch.full((len(rows),), 0.3)
            expected = flow_errors(case.model, inputs, noise * 0, noise, time)
            found = flow_errors(case.model, inputs, noise * 0, noise, time, kept)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert cache.lap()["feature_cache_hits"] == pytest.approx(
        (1 + len(everyone) + len(everyone) + 2) / (1 + 2 * len(everyone) + len(everyone) + 2)
    )


@pytest.mark.parametrize(
    ("frozen", "feature"),
    [
        (("vision", "projector"), "image_tokens"),
        (("vision", "projector", "language.embed"), "image_tokens"),
        (("vision", "projector", "language"), "image_tokens"),
        (("vision", "projector", "language", "heads.state_in"), "prefix"),
    ],
)
def test_the_prefix_is_kept_only_when_the_state_token_in_it_is_frozen(golden, frozen, feature):
    model = golden("smolvla").model
    training = TrainingConfig(steps=1, batch_size=1, feature_cache_gb=1)
    cache = build_feature_cache(training, model, plan(model, *frozen))
    assert cache.feature == feature


def test_without_a_budget_there_is_no_cache(golden):
    model = golden("pi0").model
    training = TrainingConfig(steps=1, batch_size=1)
    assert build_feature_cache(training, model, plan(model, *FROZEN_BACKBONE)) is None

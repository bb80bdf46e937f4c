"""Small real things that many tests need: demonstrations, model settings, a whole policy."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from data_tools.conventions import ActionSpec, CameraSpec, Conventions, StateSpec
from data_tools.episode import Dataset
from data_tools.formats.reader import open_dataset
from data_tools.writer import EpisodeWriter
from policy_ft.config.model import DecoderConfig, ExpertConfig, ModelConfig, TimmVisionConfig
from policy_ft.config.run import RunConfig
from policy_ft.config.transforms import TransformsConfig
from policy_ft.data.fitting import fit_transforms
from policy_ft.formats.tensor_names import published_names
from policy_ft.models.build import build_model
from policy_ft.models.inputs import ModelInput
from policy_ft.models.vla import VLAModel
from policy_ft.policy import Policy
from policy_ft.transforms import ModelShape, Transforms
from policy_ft.transforms.tokenization import train_tokenizer

SIZE = 32
GOLDENS = Path(__file__).parents[1] / "goldens"

# on tensors this small a second thread costs more than it brings, and much more on a busy machine
torch.set_num_threads(1)
INSTRUCTIONS = ("Push the red block", "lift the  blue cylinder")
Record = Callable[..., Dataset]


def arm_conventions() -> Conventions:
    """Two cameras, a four-column state, and actions whose x and y are absolute targets."""
    return Conventions(
        cameras=tuple(CameraSpec(name=n, height=SIZE, width=SIZE) for n in ("front", "wrist")),
        state=StateSpec(names=("x", "y", "z", "opening"), units=("m",) * 4, frame="world"),
        action=ActionSpec(
            names=("x", "y", "gripper"),
            units=("m", "m", "1"),
            references=("absolute", "absolute", "absolute"),
            low=(-1, -1, -1),
            high=(1, 1, 1),
        ),
        control_hz=10,
    )


@pytest.fixture
def conventions() -> Conventions:
    return arm_conventions()


def record_demos(path: Path, lengths: Sequence[int] = (5, 3, 9, 4), seed: int = 0) -> Dataset:
    """Demonstrations of random walks: actions near the state, a gripper that closes."""
    rng = np.random.default_rng(seed)
    with EpisodeWriter(path, arm_conventions()) as writer:
        for index, length in enumerate(lengths):
            state = rng.normal(0.0, 0.1, (length, 4)).cumsum(0).astype(np.float32)
            moves = rng.normal(0.0, 0.05, (length, 2))
            gripper = np.where(np.arange(length) < length / 2, -1.0, 1.0)
            actions = np.column_stack([state[:, :2] + moves, gripper])
            writer.add(
                images={
                    name: rng.integers(0, 256, (length, SIZE, SIZE, 3), dtype=np.uint8)
                    for name in ("front", "wrist")
                },
                state=state,
                actions=actions.astype(np.float32),
                instruction=INSTRUCTIONS[index % 2],
                success=True,
                attributes={},
            )
    return open_dataset(path)


@pytest.fixture(scope="session")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return record_demos(tmp_path_factory.mktemp("demos") / "arm.hdf5")


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return lambda **changes: record_demos(tmp_path / "demos.hdf5", **changes)


def small_model_config(**changes: object) -> ModelConfig:
    """The smallest VLA of the real classes, with one slot, state and action column to spare."""
    tower_args = {
        "norm_layer": "groupnorm1",
        "channels": [32, 32, 32, 32],
        "stem_chs": 32,
        "layers": [1, 1, 1, 1],
    }
    values = {
        "image_height": SIZE,
        "image_width": SIZE,
        "num_cameras": 3,
        "max_prompt_tokens": 16,
        "state_dim": 5,
        "action_dim": 4,
        "action_horizon": 4,
        "num_sampling_steps": 2,
        "vision": TimmVisionConfig(tower="resnetv2_18", tower_args=tower_args, feature_level=3),
        "language": DecoderConfig(
            family="llama",
            vocab_size=300,
            width=32,
            depth=2,
            mlp_width=48,
            num_heads=4,
            num_kv_heads=2,
            head_dim=8,
        ),
        "expert": ExpertConfig(width=24, mlp_width=40),
    }
    return ModelConfig(**values | changes)


@pytest.fixture(scope="session")
def tokenizer_json() -> str:
    return train_tokenizer([text.lower() for text in INSTRUCTIONS], 280).to_str()


FitTransforms = Callable[..., Transforms]


@pytest.fixture
def fitted(episodes: Dataset, tokenizer_json: str) -> FitTransforms:
    """Transforms of the recorded demonstrations, with some settings changed."""

    def fit(shape: ModelShape | None = None, **changes: object) -> Transforms:
        return fit_transforms(
            TransformsConfig(**{"cameras": ("front", "wrist"), **changes}),
            episodes,
            (0, 1, 2),
            shape=shape or ModelShape.of(small_model_config()),
            tokenizer_json=tokenizer_json,
        )

    return fit


@pytest.fixture
def policy(fitted: FitTransforms) -> Policy:
    """A policy whose every weight is random: zero initialization would hide mistakes."""
    return random_policy(fitted())


def random_policy(transforms: Transforms) -> Policy:
    config = small_model_config()
    model = build_model(config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return Policy(model.eval(), transforms, config, provenance={"command": "made for a test"})


MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def small_model() -> Callable[..., dict[str, object]]:
    """The small model's settings as YAML would give them, with some changed."""
    return lambda **changes: small_model_config(**changes).model_dump(mode="json")


def small_run(folder: Path, **changes: dict[str, object] | int | str) -> RunConfig:
    """Settings of a tiny, deterministic run from random weights; blocks given by name change it."""
    values: dict[str, object] = {
        "seed": 3,
        "output_dir": str(folder / "run"),
        "policy": {
            "kind": "new",
            "model": small_model_config().model_dump(mode="json"),
            "transforms": {"cameras": ["front", "wrist"]},
            "tokenizer": {"train": 280},
        },
        "data": {"path": str(folder / "demos.hdf5"), "num_workers": 0},
        "tuning": {"ema": {"decay": 0.9}},
        "optimizer": {"lr": 1e-3, "final_lr": 1e-4, "warmup_steps": 2, "decay_steps": 20},
        "training": {
            "steps": 6,
            "batch_size": 4,
            "precision": "fp32",
            "deterministic": True,
            "num_threads": 1,
            "log_every": 2,
            "save_every": 3,
        },
        "validation": {"every": 3, "num_windows": 4, "num_noise": 1, "times": [0.3, 0.8]},
    }
    for block, value in changes.items():
        present = values.get(block)
        is_merged = isinstance(value, dict) and isinstance(present, dict)
        values[block] = {**present, **value} if is_merged else value
    if not (folder / "demos.hdf5").exists():
        record_demos(folder / "demos.hdf5")
    return RunConfig.model_validate(values)


@pytest.fixture
def run_config(tmp_path: Path) -> MakeConfig:
    """`small_run` in a folder of the test's own."""
    return partial(small_run, tmp_path)


OLD_MAPPING: dict[str, object] = {
    "cameras": {"front": "agentview", "wrist": None},
    "state": {"rename": {"x": "eef_x", "y": "eef_y", "z": "eef_z"}},
    "action": {"rename": {"x": "eef_x", "y": "eef_y", "gripper": "grip"}},
}
"""How another robot's demonstrations become those of `arm_conventions`."""


@pytest.fixture
def write_old(tmp_path: Path) -> Callable[..., Path]:
    """(Over)writes another robot's demonstrations: one camera, other names, another order."""
    names = ("grip", "eef_x", "eef_y")
    conventions = Conventions(
        cameras=(CameraSpec(name="agentview", height=48, width=64),),
        state=StateSpec(
            names=("opening", "eef_x", "eef_y", "eef_z"), units=("m",) * 4, frame="world"
        ),
        action=arm_conventions().action.model_copy(
            update={"names": names, "units": ("1", "m", "m")}
        ),
        control_hz=10,
    )

    def write(num_episodes: int = 6, spread: float = 0.3) -> Path:
        path, rng = tmp_path / "old.hdf5", np.random.default_rng(8)
        with EpisodeWriter(path, conventions, overwrite=True) as writer:
            for index in range(num_episodes):
                writer.add(
                    images={"agentview": rng.integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)},
                    state=rng.normal(0.2, spread, (4, 4)).astype(np.float32),
                    actions=rng.uniform(-spread, spread, (4, 3)).astype(np.float32),
                    instruction=("lift the blue cylinder", "push the red block")[index % 3 > 0],
                    success=True,
                    attributes={},
                )
        return path

    return write


@pytest.fixture
def old(write_old: Callable[..., Path]) -> Path:
    """Six demonstrations of another robot, four of them of one task."""
    return write_old()


@pytest.fixture
def mixed(run_config: MakeConfig, tmp_path: Path, old: Path) -> MakeConfig:
    """Settings of a run on four new and six old demonstrations; every fourth sample is old."""

    def make(
        old_changes: dict[str, object] | None = None,
        data: dict[str, object] | None = None,
        **changes: dict[str, object] | int | str,
    ) -> RunConfig:
        mixture = {
            "new": {"path": str(tmp_path / "demos.hdf5"), "weight": 3},
            "old": {"path": str(old), "weight": 1, **OLD_MAPPING, **(old_changes or {})},
        }
        block = {"path": [], "mixture": mixture, "mixture_statistics": "shared", **(data or {})}
        return run_config(data=block, **changes)

    return make


@dataclass(frozen=True)
class Golden:
    """A small published policy with random weights, and what its own code computes with them."""

    config: ModelConfig
    model: VLAModel
    inputs: ModelInput
    arrays: dict[str, Tensor]


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    """The golden of a family: 'pi0', 'pi05' or 'smolvla'; a fresh model each time."""
    return make_golden


def make_golden(family: str) -> Golden:
    config = ModelConfig.model_validate_json((GOLDENS / f"{family}.json").read_text())
    weights = load_file(GOLDENS / f"{family}.safetensors")
    names = published_names(weights, family)
    model = build_model(config)
    renamed = {names.live_name(name): tensor for name, tensor in weights.items()}
    renamed.pop(None, None)
    model.load_state_dict(renamed)
    with np.load(GOLDENS / f"{family}.npz") as stored:
        arrays = {name: torch.from_numpy(array) for name, array in stored.items()}
    start = "image_mask_"
    cameras = [name.removeprefix(start) for name in arrays if name.startswith(start)]
    images = torch.stack([arrays[f"image_{name}"] for name in cameras], dim=1)
    inputs = ModelInput(
        images=images.permute(0, 1, 4, 2, 3) / 127.5 - 1.0,
        image_mask=torch.stack([arrays[start + name] for name in cameras], dim=1),
        prompt_tokens=arrays["prompt_tokens"].long(),
        prompt_mask=arrays["prompt_mask"],
        state=arrays["state"],
    )
    return Golden(config, model.eval(), inputs, arrays)


class _Float64Stays(TorchFunctionMode):
    """Where a model asks for float32 of a float64 tensor, it keeps what it has."""

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        is_float64 = bool(args) and isinstance(args[0], Tensor) and args[0].dtype == torch.float64
        narrows = function is Tensor.float or (
            function is Tensor.to and args[1:] == (torch.float32,)
        )
        return args[0] if is_float64 and narrows else function(*args, **(kwargs or {}))


@pytest.fixture
def float64_stays() -> Iterator[None]:
    """Models in float64 compute in it throughout: gradients compare to 1e-9, not 1e-6."""
    with _Float64Stays():
        yield

"""Directories as openpi and LeRobot write them, made from the golden weights."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_tools.episode import Observation
from policy_ft.models.solvers import SampleRequest
from policy_ft.policy import Policy
from policy_ft.transforms.tokenization import train_tokenizer

GOLDENS = Path(__file__).parents[2] / "goldens"
STATE_DIM, ACTION_DIM = 7, 7
DEAD_HEADS = {
    "pi0": ("paligemma_with_expert.gemma_expert.lm_head.weight", (512, 64)),
    "pi05": ("paligemma_with_expert.gemma_expert.lm_head.weight", (512, 64)),
}
NEW_LINE_STEPS = {"pi0": "pi0_new_line_processor", "smolvla": "smolvla_new_line_processor"}
PROMPT_STEP = "pi05_prepare_state_tokenizer_processor_step"

WriteDirectory = Callable[..., Path]


@pytest.fixture(scope="session")
def golden_weights() -> Callable[[str], dict[str, Tensor]]:
    """golden_weights(family): its tensors under their published names, the dead head among them."""
    return weights


@pytest.fixture(scope="session")
def lerobot_settings() -> Callable[..., dict[str, Any]]:
    """lerobot_settings(family, key=value, ...): a config.json of LeRobot."""
    return lerobot_config


@pytest.fixture(scope="session")
def lerobot_steps() -> Callable[..., list[dict[str, Any]]]:
    """lerobot_steps(family, config): the preprocessor that LeRobot makes of a config.json."""
    return preprocessor_steps


@pytest.fixture(scope="session")
def tokenizer_json() -> str:
    return train_tokenizer(["pick up the red cube", "open the drawer"], 300).to_str()


def numbers(width: int, seed: int) -> dict[str, list[float]]:
    """mean, std, min, max, q01 and q99 of `width` columns, in doubles that no float32 equals."""
    generator = torch.Generator().manual_seed(seed)

    def row() -> Tensor:
        return torch.rand(width, generator=generator, dtype=torch.float64)

    mean, std, low, high = row() - 0.5, row() + 0.1, -1.0 - row(), 1.0 + row()
    rows = {"mean": mean, "std": std, "q01": low, "q99": high, "min": low - 1.0, "max": high + 1.0}
    return {name: values.tolist() for name, values in rows.items()}


def openpi_statistics(state_dim: int = STATE_DIM, action_dim: int = ACTION_DIM) -> dict[str, Any]:
    kept = ("mean", "std", "q01", "q99")
    parts = {"state": numbers(state_dim, 1), "actions": numbers(action_dim, 2)}
    return {"norm_stats": {part: {k: rows[k] for k in kept} for part, rows in parts.items()}}


def weights(family: str, *, dead_head: bool = True) -> dict[str, Tensor]:
    """The golden weights under their published names, some in bfloat16 as in a real file."""
    tensors = load_file(GOLDENS / f"{family}.safetensors")
    if dead_head and family in DEAD_HEADS:
        name, shape = DEAD_HEADS[family]
        tensors[name] = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    return tensors


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _openpi_directory(
    directory: Path,
    family: str,
    tensors: Mapping[str, Tensor] | None = None,
    config: Mapping[str, Any] | None = None,
    statistics: Mapping[str, Any] | None = None,
) -> Path:
    directory.mkdir(parents=True)
    save_file(dict(tensors or weights(family)), directory / "model.safetensors")
    if config is not None:
        write_json(directory / "config.json", config)
    given = {"trossen": openpi_statistics()} if statistics is None else statistics
    for asset, content in given.items():
        write_json(directory / "assets" / asset / "norm_stats.json", content)
    # as openpi's trainer leaves them: pickles, which nothing here may open
    (directory / "optimizer.pt").write_bytes(b"not even a pickle")
    (directory / "metadata.pt").write_bytes(b"not even a pickle")
    return directory


def _act(policy: Policy) -> npt.NDArray[np.float32]:
    generator = np.random.default_rng(0)
    seen = Observation(
        images={
            c.name: generator.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8)
            for c in policy.conventions.cameras
        },
        state=generator.normal(size=len(policy.conventions.state.names)).astype(np.float32),
        instruction="pick up the red cube",
    )
    return policy.act([seen], SampleRequest(torch.zeros(1, *policy.chunk_shape)))[0]


@pytest.fixture(scope="session")
def act() -> Callable[[Policy], npt.NDArray[np.float32]]:
    """act(policy): the chunk for one observation of noise, from a flow that starts at zero."""
    return _act


@pytest.fixture(scope="session")
def openpi_directory() -> WriteDirectory:
    """openpi_directory(path, family, tensors, config, statistics): a PyTorch checkpoint."""
    return _openpi_directory


def _write_robot(path: Path, names: Sequence[str] = "abcdefg", **changes: Any) -> str:
    robot: dict[str, Any] = {
        "name": path.stem,
        "description": "an arm",
        "cameras": ["base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"],
        "asset_ids": ["trossen", "robot"],
        **changes,
    }
    columns = {"names": list(names), "units": ["rad"] * len(names)}
    many = {"references": ["absolute"], "low": [-10.0], "high": [10.0]}
    cameras = [name for name in robot["cameras"] if name is not None]
    robot["conventions"] = {
        "control_hz": 30,
        "cameras": [{"name": name, "height": 48, "width": 64} for name in cameras],
        "state": columns,
        "action": columns | {key: row * len(names) for key, row in many.items()},
    }
    path.write_text(yaml.safe_dump(robot), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def write_robot() -> Callable[..., str]:
    """write_robot(path, names, key=value, ...): the YAML of an embodiment; returns its path."""
    return _write_robot


@pytest.fixture(scope="session")
def arm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An embodiment that the checkpoints of `openpi_directory` hold the statistics of."""
    return _write_robot(tmp_path_factory.mktemp("robot") / "arm.yaml")


def lerobot_config(family: str, **changes: Any) -> dict[str, Any]:
    """config.json as LeRobot 0.6 writes it, cut to the keys that differ between policies."""
    images = {
        f"observation.images.{name}": {"type": "VISUAL", "shape": [3, *size]}
        for name, size in (("top", (48, 64)), ("wrist", (64, 64)))
    }
    mode = "QUANTILES" if family == "pi05" else "MEAN_STD"
    config: dict[str, Any] = {
        "type": family,
        "n_obs_steps": 1,
        "input_features": {
            **images,
            "observation.state": {"type": "STATE", "shape": [STATE_DIM]},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [ACTION_DIM]}},
        "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode},
        "device": "cuda",
        "use_amp": False,
        "chunk_size": 50,
        "n_action_steps": 20,
        "max_state_dim": 32,
        "max_action_dim": 32,
        "optimizer_lr": 2.5e-5,
        "rtc_config": None,
        "empty_cameras": 0,
        "tokenizer_max_length": 200 if family == "pi05" else 48,
        "min_period": 4e-3,
        "max_period": 4.0,
    }
    if family == "smolvla":
        golden = json.loads((GOLDENS / "smolvla_config.json").read_text(encoding="utf-8"))
        config |= {**golden["policy"], "vlm_config": golden["vlm_config"]}
    else:
        config |= {
            "paligemma_variant": "dummy",
            "action_expert_variant": "dummy",
            "num_inference_steps": 10,
            "use_relative_actions": False,
            "relative_exclude_joints": ["gripper"],
            "action_feature_names": None,
            "image_resolution": [224, 224],
        }
    return {**config, **changes}


def preprocessor_steps(family: str, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The preprocessor of LeRobot 0.6, in its order for the family."""
    features = {**config["input_features"], **config["output_features"]}
    tokenizer = {"max_length": config["tokenizer_max_length"], "tokenizer_name": "tokenizer"}
    tokenizer |= {"task_key": "task", "padding_side": "right", "truncation": True}
    rename = ("rename_observations_processor", {"rename_map": {}})
    batch = ("to_batch_processor", {})
    tokenize = ("tokenizer_processor", {**tokenizer, "padding": "max_length"})
    device = ("device_processor", {"device": "cuda", "float_dtype": None})
    relative = (
        "relative_actions_processor",
        {
            "enabled": config.get("use_relative_actions", False),
            "exclude_joints": config.get("relative_exclude_joints", []),
            "action_names": config.get("action_feature_names"),
        },
    )
    normalize = (
        "normalizer_processor",
        {"eps": 1e-8, "features": features, "norm_map": config["normalization_mapping"]},
    )
    if family == "pi05":
        steps = [rename, batch, relative, normalize, (PROMPT_STEP, {}), tokenize, device]
    else:
        steps = [rename, batch, (NEW_LINE_STEPS[family], {}), tokenize, device]
        steps += [normalize] if family == "smolvla" else [relative, normalize]
    return [{"registry_name": name, "config": settings} for name, settings in steps]


def lerobot_statistics() -> dict[str, Tensor]:
    """The tensors of a normalizer: float32, statistics of images and a count among them."""
    tensors = {
        f"{feature}.{name}": torch.tensor(row, dtype=torch.float32)
        for feature, rows in (
            ("observation.state", numbers(STATE_DIM, 1)),
            ("action", numbers(ACTION_DIM, 2)),
        )
        for name, row in rows.items()
    }
    tensors["observation.images.top.mean"] = torch.full((3, 1, 1), 0.5)
    tensors["action.count"] = torch.tensor([1234.0])
    return tensors


def write_processors(
    directory: Path,
    family: str,
    config: Mapping[str, Any],
    statistics: Mapping[str, Tensor],
    steps: list[dict[str, Any]] | None = None,
) -> None:
    steps = preprocessor_steps(family, config) if steps is None else steps
    after = [
        {"registry_name": "unnormalizer_processor", "config": {"eps": 1e-8}},
        {"registry_name": "absolute_actions_processor", "config": {"enabled": False}},
        {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}},
    ]
    for name, pipeline in (("policy_preprocessor", steps), ("policy_postprocessor", after)):
        for index, step in enumerate(pipeline):
            if "normalizer" in step["registry_name"] and statistics:
                step["state_file"] = f"{name}_step_{index}_{step['registry_name']}.safetensors"
                save_file(dict(statistics), directory / step["state_file"])
        write_json(directory / f"{name}.json", {"name": name, "steps": pipeline})


def _lerobot_directory(
    directory: Path,
    family: str,
    tokenizer_json: str,
    *,
    tensors: Mapping[str, Tensor] | None = None,
    root: str = "model.",
    config: Mapping[str, Any] | None = None,
    statistics: Mapping[str, Tensor] | None = None,
    processors: bool = True,
    steps: list[dict[str, Any]] | None = None,
) -> Path:
    directory.mkdir(parents=True)
    named = weights(family) if tensors is None else tensors
    bare = {name.removeprefix("model."): each for name, each in named.items()}
    roots = ("normalize_", "unnormalize_")
    stored = {n if n.startswith(roots) else root + n: each for n, each in bare.items()}
    save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
    config = lerobot_config(family) if config is None else config
    write_json(directory / "config.json", config)
    if processors:
        given = lerobot_statistics() if statistics is None else statistics
        write_processors(directory, family, config, given, steps)
    (directory / "tokenizer").mkdir()
    (directory / "tokenizer" / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    write_json(directory / "tokenizer" / "tokenizer_config.json", {"padding_side": "right"})
    return directory


@pytest.fixture(scope="session")
def lerobot_directory(tokenizer_json: str) -> WriteDirectory:
    """lerobot_directory(path, family, ...): a pretrained_model directory."""

    def write(directory: Path, family: str, **changes: Any) -> Path:
        return _lerobot_directory(directory, family, tokenizer_json, **changes)

    return write


@pytest.fixture(scope="session")
def tokenizer_file(tokenizer_json: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(tokenizer_json, encoding="utf-8")
    return path

"""The files that LeRobot keeps beside the weights: config.json and processors, as of 0.6."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from policy_ft.config.model import ModelConfig, SiglipVisionConfig
from policy_ft.errors import UserError, describe
from policy_ft.formats.conversion.contents import Contents, main_dtype
from policy_ft.formats.lerobot.lerobot_config import ACTION, IMAGES, STATE
from policy_ft.formats.lerobot.lerobot_processors import (
    ABSOLUTE_STEP,
    BATCH_STEP,
    DEVICE_STEP,
    NEW_LINE_STEPS,
    NORMALIZER_STEP,
    POSTPROCESSOR,
    PREPROCESSOR,
    PROMPT_STEP,
    RELATIVE_STEP,
    RENAME_STEP,
    TOKENIZER_STEP,
    UNNORMALIZER_STEP,
)
from policy_ft.formats.lerobot.lerobot_robot import NORMALIZATIONS, is_kept_absolute
from policy_ft.formats.lerobot.read_lerobot import TOKENIZER_DIRECTORY
from policy_ft.formats.lerobot.tensor_document import TensorDocument, tensor_document
from policy_ft.formats.published import CONFIG_FILE, TOKENIZERS
from policy_ft.formats.sizes import SIGLIP_HEADS, SMOLVLM_HEADS, gemma_variants
from policy_ft.formats.tensor_names import PublishedFamily
from policy_ft.transforms.tokenization import BOS, PAD

Json = dict[str, Any]


def lerobot_documents(contents: Contents, family: PublishedFamily) -> Json:
    """Path below the directory -> JSON, tensors as `tensor_document`.

    Raises:
        UserError: the relative actions cannot be said in LeRobot's way.
    """
    config = _config(contents, family)
    documents: Json = {CONFIG_FILE: config}
    statistics = _statistics(contents)
    if contents.tokenizer_json is not None:
        name = f"{TOKENIZER_DIRECTORY}/tokenizer_config.json"
        documents[name] = _tokenizer_config(json.loads(contents.tokenizer_json))
    pipelines = {
        PREPROCESSOR: list(_before(contents, family, config)),
        POSTPROCESSOR: list(_after(contents, family, config)),
    }
    for file, steps in pipelines.items():
        name = file.removesuffix(".json")
        for index, step in enumerate(steps):
            if statistics and step["registry_name"] in (NORMALIZER_STEP, UNNORMALIZER_STEP):
                step["state_file"] = f"{name}_step_{index}_{step['registry_name']}.safetensors"
                documents[step["state_file"]] = statistics
        documents[file] = {"name": name, "steps": steps}
    return documents


def _tokenizer_config(tokenizer: Json) -> Json:
    """What transformers needs beside a tokenizer.json to encode as that file says."""
    known = {token["content"] for token in tokenizer.get("added_tokens", ())}
    marks = {f"{name}_token": mark for name, mark in (("pad", PAD), ("bos", BOS)) if mark in known}
    before = tokenizer.get("pre_tokenizer") or {}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "padding_side": "right",
        "add_prefix_space": before.get("add_prefix_space", False),
        **marks,
    }


def _config(contents: Contents, family: PublishedFamily) -> Json:
    config, robot = contents.config, contents.conventions
    cameras = robot.cameras
    executed = contents.provenance.get("replan_steps", config.action_horizon)
    document: Json = {
        "type": family,
        "n_obs_steps": 1,
        "input_features": {
            **{f"{IMAGES}{c.name}": _feature("VISUAL", 3, c.height, c.width) for c in cameras},
            STATE: _feature("STATE", len(robot.state.names)),
        },
        "output_features": {ACTION: _feature("ACTION", len(robot.action.names))},
        "normalization_mapping": _normalizations(contents),
        "chunk_size": config.action_horizon,
        "n_action_steps": min(executed, config.action_horizon),
        "max_state_dim": config.state_dim,
        "max_action_dim": config.action_dim,
        "empty_cameras": config.num_cameras - len(cameras),
        "tokenizer_max_length": config.max_prompt_tokens,
        "min_period": config.expert.min_period,
        "max_period": config.expert.max_period,
    }
    if family == "smolvla":
        return {**document, **_smolvla_config(config)}
    return {
        **document,
        **gemma_variants(config),
        "dtype": main_dtype(contents),
        "num_inference_steps": config.num_sampling_steps,
        "image_resolution": [config.image_height, config.image_width],
        **_relative_actions(contents),
    }


def _feature(kind: str, *shape: int) -> Json:
    return {"type": kind, "shape": list(shape)}


def _normalizations(contents: Contents) -> dict[str, str]:
    """Feature type -> LeRobot's name of its normalization."""
    theirs = {ours: name for name, ours in NORMALIZATIONS.items()}
    config = contents.transforms_config
    return {
        "VISUAL": "IDENTITY",
        "STATE": theirs[config.state_normalization],
        "ACTION": theirs[config.action_normalization],
    }


def _smolvla_config(config: ModelConfig) -> Json:
    """SmolVLA's own keys; vlm_config, which LeRobot has not, only for sizes it cannot have."""
    document: Json = {
        "num_steps": config.num_sampling_steps,
        "resize_imgs_with_padding": [config.image_width, config.image_height],
        "num_vlm_layers": config.language.depth,
        "self_attn_every_n_layers": config.expert.self_attention_every,
        "expert_width_multiplier": config.expert.width / config.language.width,
        "attention_mode": "cross_attn",
        "vlm_model_name": TOKENIZERS["smolvla"],
        "load_vlm_weights": False,
    }
    vision, language = config.vision, config.language
    assert isinstance(vision, SiglipVisionConfig), "smolvla has a SigLIP tower"
    is_published = SIGLIP_HEADS.get(vision.width) == vision.num_heads
    is_published &= SMOLVLM_HEADS.get(language.width) == language.num_heads
    if not is_published or vision.shifted_positions:
        document["vlm_config"] = {
            "vision_config": {
                "num_attention_heads": vision.num_heads,
                "layer_norm_eps": vision.norm_eps,
                "shifted_positions": vision.shifted_positions,
            },
            "text_config": {
                "num_attention_heads": language.num_heads,
                "num_key_value_heads": language.num_kv_heads,
                "rms_norm_eps": language.norm_eps,
            },
        }
    return document


def _relative_actions(contents: Contents) -> Json:
    """LeRobot's words for delta_actions: all columns but those whose names hold a word."""
    names, states = contents.conventions.action.names, contents.conventions.state.names
    deltas = set(contents.transforms_config.delta_actions)
    excluded = [name for name in names if name not in deltas]
    said = {name for name in names if not is_kept_absolute(name, excluded)}
    in_place = all(names.index(name) == states.index(name) for name in deltas)
    if deltas and (said != deltas or not in_place):
        found = f"delta_actions {sorted(deltas)} of {list(names)}"
        expected = "columns in the same places of state and action, no name part of another's"
        remedy = "Rename or reorder the columns and train again; LeRobot tells columns so."
        raise UserError(describe(str(contents.directory), found, expected, remedy))
    return {
        "use_relative_actions": bool(deltas),
        "relative_exclude_joints": excluded if deltas else [],
        "action_feature_names": list(names),
    }


def _statistics(contents: Contents) -> TensorDocument:
    """Statistics in doubles, exact; LeRobot rounds them to float32 as it reads them.

    None where nobody says in which space they are: LeRobot would take them for the robot's own.
    """
    if contents.statistics is None or "statistics" in contents.absent:
        return {}
    features = {STATE: contents.statistics.state, ACTION: contents.statistics.actions}
    return tensor_document(
        {
            f"{feature}.{name}": torch.tensor(stats.row(name))
            for feature, stats in features.items()
            for name in stats.present
        }
    )


def _before(contents: Contents, family: PublishedFamily, config: Json) -> Iterator[Json]:
    """The preprocessor, in the order that LeRobot 0.6 has for the family."""
    yield _step(RENAME_STEP, {"rename_map": {}})
    yield _step(BATCH_STEP, {})
    normalize = _step(NORMALIZER_STEP, _normalizer(contents, config))
    device = _step(DEVICE_STEP, {"device": "cpu", "float_dtype": None})
    relative = _step(
        RELATIVE_STEP,
        {
            "enabled": config.get("use_relative_actions", False),
            "exclude_joints": config.get("relative_exclude_joints", []),
            "action_names": config.get("action_feature_names"),
        },
    )
    if family == "pi05":
        yield from (relative, normalize, _step(PROMPT_STEP, {}), _tokenizer(contents, family))
        yield device
        return
    yield from (_step(NEW_LINE_STEPS[family], {}), _tokenizer(contents, family), device)
    if family == "pi0":
        yield relative
    yield normalize


def _after(contents: Contents, family: PublishedFamily, config: Json) -> Iterator[Json]:
    """The postprocessor."""
    yield _step(UNNORMALIZER_STEP, _normalizer(contents, config))
    if family != "smolvla":
        yield _step(ABSOLUTE_STEP, {"enabled": config["use_relative_actions"]})
    yield _step(DEVICE_STEP, {"device": "cpu", "float_dtype": None})


def _step(name: str, settings: Mapping[str, Any]) -> Json:
    return {"registry_name": name, "config": dict(settings)}


def _normalizer(contents: Contents, config: Json) -> Json:
    return {
        "eps": contents.transforms_config.epsilon,
        "features": {**config["input_features"], **config["output_features"]},
        "norm_map": config["normalization_mapping"],
    }


def _tokenizer(contents: Contents, family: PublishedFamily) -> Json:
    step = _step(
        TOKENIZER_STEP,
        {
            "max_length": contents.config.max_prompt_tokens,
            "task_key": "task",
            "padding_side": "right",
            "padding": "longest" if family == "smolvla" else "max_length",
            "truncation": True,
            "tokenizer_name": TOKENIZERS[family],
        },
    )
    if contents.tokenizer_json is not None:
        step["config"]["tokenizer_name"] = TOKENIZER_DIRECTORY
        step["artifacts"] = {"tokenizer_name": TOKENIZER_DIRECTORY}
    return step

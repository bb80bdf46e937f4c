"""Checkpoint directories of openpi: weights under its names, statistics in assets/<id>."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_tools.conventions import Conventions
from policy_ft.checkpoints.tensor_files import WEIGHTS_FILE, tensor_files
from policy_ft.config.model import ModelConfig
from policy_ft.config.transforms import TransformsConfig
from policy_ft.errors import (
    UserError,
    describe,
    dotted,
    raise_faults,
    read_json,
    validation_faults,
)
from policy_ft.formats.embodiments import PRESETS, Embodiment, load_embodiment
from policy_ft.formats.embodiments.robot_beside import asset_ids_beside
from policy_ft.formats.orbax.orbax_weights import OrbaxParams
from policy_ft.formats.published import (
    CONFIG_FILE,
    FoundStatistics,
    Published,
    checked_stats,
    damaged_statistics,
    no_tokenizer,
    numbered,
    read_json_object,
    read_names,
    statistics_of_robot,
    tokenizer_beside,
    twin_notes,
    unknown_robot,
    unread_notes,
)
from policy_ft.formats.required_tensors import require_size_tensors
from policy_ft.formats.sizes import Stated, model_config, stated_variant
from policy_ft.formats.tensor_names import PublishedNames
from policy_ft.transforms import Statistics
from policy_ft.transforms.tokenization import TOKENIZER_FILE

PARAMS_DIRECTORY: Final = "params"
STATISTICS_FILE: Final = "norm_stats.json"
CAMERAS: Final = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
EPSILON: Final = 1e-6
PADDED_WIDTH: Final = 32
"""To how many columns openpi pads states and actions of every robot."""

PROMPT_NOTE: Final = (
    "prompt: with the state in it, which neither config.json (discrete_state_input) nor the "
    "embodiment (prompt_says_state) says"
)

Row = tuple[float, ...]


class OpenpiConfig(BaseModel):
    """config.json, which openpi's converter writes and its trainer does not."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    action_dim: int | None = Field(None, description="Columns of a padded action.")
    action_horizon: int | None = Field(None, description="Steps of a chunk.")
    paligemma_variant: str | None = Field(None, description="Name of the language model's sizes.")
    action_expert_variant: str | None = Field(None, description="Name of the expert's sizes.")
    precision: str | None = Field(None, description="Type of the weights; the file says it too.")
    dtype: str | None = Field(None, description="Type of the computation.")
    max_token_len: int | None = Field(None, description="Longest prompt in tokens.")
    pi05: bool | None = Field(None, description="Whether the model is pi0.5.")
    discrete_state_input: bool | None = Field(
        None, description="Whether the prompt says the state; pi0.5."
    )
    pytorch_compile_mode: str | None = Field(None, description="Of torch.compile; not used.")


class OpenpiColumns(BaseModel):
    """Statistics of one array."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    mean: Row = Field(description="Mean of each column.")
    std: Row = Field(description="Deviation of each column.")
    q01: Row | None = Field(None, description="1 % quantile of each column.")
    q99: Row | None = Field(None, description="99 % quantile of each column.")


class OpenpiArrays(BaseModel):
    """Statistics of both arrays."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    state: OpenpiColumns = Field(description="Of the state.")
    actions: OpenpiColumns = Field(description="Of the actions as the model sees them.")


class OpenpiStatistics(BaseModel):
    """norm_stats.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    norm_stats: OpenpiArrays = Field(description="By array.")


def read_openpi(
    directory: Path, embodiment: Embodiment | None = None, tokenizer_json: str | None = None
) -> Published:
    """What an openpi checkpoint says beside its weights.

    Args:
        directory: with model.safetensors (PyTorch) or params/ (JAX), and, where they were kept,
            config.json and assets/<id>/norm_stats.json.
        embodiment: the robot it is used for; not given, its parts are declared unknown.
        tokenizer_json: used instead of the directory's own.

    Raises:
        UserError: the weights are of no known family, config.json does not fit them, or a file is
            damaged.
    """
    is_jax = (directory / PARAMS_DIRECTORY).is_dir()
    paths = [directory / PARAMS_DIRECTORY] if is_jax else tensor_files(directory / WEIGHTS_FILE)
    files = tuple(OrbaxParams(path) if is_jax else path for path in paths)
    names, shapes = read_names(files)
    config_document, stated, says_state = _read_config(directory, names)
    require_size_tensors(names, shapes, str(directory))
    config, assumed = model_config(names.family, shapes, stated, str(directory))
    documents = {**config_document, **_statistics_documents(directory)}
    found = _statistics(directory, documents, embodiment, config)
    absent = {} if found.absent is None else {"statistics": found.absent}
    notes = (*found.notes, *_width_notes(config))
    if says_state is None and names.family == "pi05":
        is_told = embodiment is not None and "prompt_says_state" in embodiment.model_fields_set
        says_state = embodiment is None or embodiment.prompt_says_state
        if not is_told:
            notes = (*notes, PROMPT_NOTE)
    tokenizer_json = tokenizer_json or tokenizer_beside(directory, (TOKENIZER_FILE,))
    if tokenizer_json is None:
        absent["tokenizer"] = no_tokenizer(directory, names.family)
    return Published(
        directory=directory,
        format="orbax" if is_jax else "openpi",
        files=files,
        names=names,
        config=config,
        transforms_config=_transforms_config(names, config, embodiment, bool(says_state)),
        conventions=(
            embodiment.conventions if embodiment else _unknown_conventions(config, found.statistics)
        ),
        statistics=found.statistics,
        tokenizer_json=tokenizer_json,
        absent=absent,
        has_unfit_statistics=found.is_unfit,
        documents=documents,
        assumed=assumed,
        notes=(*notes, *twin_notes(files, names), *unread_notes(directory, paths)),
    )


def _read_config(
    directory: Path, names: PublishedNames
) -> tuple[dict[str, Any], dict[str, Stated], bool | None]:
    """The document, the sizes it states, and whether a pi0.5 prompt says the state, if told."""
    path = directory / CONFIG_FILE
    if not path.is_file():
        return {}, {}, None
    document = read_json_object(path)
    try:
        config = OpenpiConfig.model_validate(document)
    except ValidationError as error:
        raise UserError(
            validation_faults(error, OpenpiConfig, lambda key: f"{path}, {dotted(key)}")
        ) from None
    if config.pi05 is not None and config.pi05 != (names.family == "pi05"):
        expected = f"{not config.pi05!r}, for the weights are of {names.family}"
        remedy = "Take config.json and weights from the same checkpoint."
        raise UserError(describe(f"{path}, pi05", repr(config.pi05), expected, remedy))
    stated = {
        name: Stated(key, document[key])
        for key, name in (
            ("action_dim", "action_dim"),
            ("action_horizon", "action_horizon"),
            ("max_token_len", "max_prompt_tokens"),
        )
        if document.get(key) is not None
    }
    if names.family == "pi0" and config.action_dim is not None:
        stated["state_dim"] = Stated("action_dim (which state_proj has, too)", config.action_dim)
    stated |= stated_variant("paligemma_variant", config.paligemma_variant, "language")
    stated |= stated_variant("action_expert_variant", config.action_expert_variant, "expert")
    return {CONFIG_FILE: document}, stated, config.discrete_state_input


def _statistics_documents(directory: Path) -> dict[str, Any]:
    """Relative path -> content of every norm_stats.json below assets."""
    found = sorted((directory / "assets").glob(f"**/{STATISTICS_FILE}"))
    return {path.relative_to(directory).as_posix(): read_json(path) for path in found}


def _statistics(
    directory: Path,
    documents: Mapping[str, Any],
    embodiment: Embodiment | None,
    config: ModelConfig,
) -> FoundStatistics:
    """The statistics of the embodiment or the only ones, or why there are none or not to be used.

    They are of columns as the model sees them, mapped and relative, which an embodiment alone says.
    """
    stored = {
        Path(name).parent.relative_to("assets").as_posix(): name
        for name in documents
        if name.endswith(STATISTICS_FILE)
    }
    # statistics of another robot are wrong even where their widths happen to fit
    wanted = tuple(stored) if len(stored) == 1 else ()
    if embodiment is not None:
        wanted = embodiment.asset_ids or asset_ids_beside(directory, embodiment)
    chosen = [stored[asset_id] for asset_id in wanted if asset_id in stored]
    absent = _no_statistics(directory / "assets", sorted(stored), embodiment)
    if not chosen:
        return FoundStatistics(None, absent, is_unfit=bool(stored) and embodiment is not None)
    try:
        read = _read_statistics(directory, documents, chosen[0])
    except UserError as error:
        return damaged_statistics(error.faults)
    if embodiment is None:
        return FoundStatistics(read, absent)
    padded = {PADDED_WIDTH, config.state_dim, config.action_dim}
    place = f"{directory / chosen[0]}, embodiment {embodiment.name!r}"
    return statistics_of_robot(read, embodiment.conventions, place, padded)


def _no_statistics(where: Path, stored: Sequence[str], embodiment: Embodiment | None) -> str:
    """What to tell who needs statistics: whose there are, and how to say which robot it is."""
    remedy = "Compute them from data (statistics: data)"
    if not stored:
        remedy += f", or copy assets/<id>/{STATISTICS_FILE} from where the weights come from."
        return describe(str(where), f"no {STATISTICS_FILE}", "the statistics of one robot", remedy)
    expected = "the statistics of one robot, and how it maps its columns to the model's"
    presets = [load_embodiment(name) for name in PRESETS]
    known = [
        f"{asset_id!r} is of embodiment {robot.name!r}"
        for asset_id in stored
        for robot in presets
        if asset_id in robot.asset_ids
    ]
    found = f"statistics of {list(stored)}"
    if embodiment is None:
        found += " and no embodiment that has them"
        remedy += (
            ", or name the robot (policy.embodiment, load_policy(embodiment=...), --embodiment), "
            "whose asset_ids must have one of them"
        )
    else:
        ids = (
            f"the asset_ids {list(embodiment.asset_ids)}"
            if embodiment.asset_ids
            else "no asset_ids"
        )
        found += f", and {ids} in embodiment {embodiment.name!r}"
        remedy += (
            f"; or, where they are of this robot, add asset_ids: [{stored[0]}] to its YAML file"
        )
    remedy += f": {', '.join(known)}." if known else "."
    return describe(str(where), found, expected, remedy)


def _read_statistics(directory: Path, documents: Mapping[str, Any], name: str) -> Statistics:
    """The statistics of a norm_stats.json; UserError where no data can have them."""
    try:
        arrays = OpenpiStatistics.model_validate(documents[name]).norm_stats
    except ValidationError as error:
        raise UserError(
            validation_faults(
                error, OpenpiStatistics, lambda key: f"{directory / name}, {dotted(key)}"
            )
        ) from None
    where = directory / name
    state, state_faults = checked_stats(arrays.state.model_dump(), f"{where}, state")
    actions, action_faults = checked_stats(arrays.actions.model_dump(), f"{where}, actions")
    raise_faults([*state_faults, *action_faults])
    assert state is not None
    assert actions is not None
    return Statistics(fingerprint=statistics_fingerprint(name), state=state, actions=actions)


def statistics_fingerprint(name: str) -> str:
    """How the statistics of a norm_stats.json, at this path below the checkpoint, are known."""
    return f"openpi {name}"


def _width_notes(config: ModelConfig) -> tuple[str, ...]:
    """What to say of a state as wide as openpi's own code could not make it."""
    if config.family != "pi0" or config.state_dim == config.action_dim:
        return ()
    return (
        f"state_proj of {config.state_dim} columns beside actions of {config.action_dim}: openpi's "
        "own code makes both of one width and cannot load these weights",
    )


def _transforms_config(
    names: PublishedNames,
    config: ModelConfig,
    embodiment: Embodiment | None,
    says_state: bool,
) -> TransformsConfig:
    kind = "mean_std" if names.family == "pi0" else "quantiles"
    values: dict[str, Any] = {
        "cameras": CAMERAS[: config.num_cameras],
        "resize": "pil_bilinear_center_pad",
        "state_normalization": kind,
        "action_normalization": kind,
        "epsilon": EPSILON,
        "range_epsilon": "added",
        "still_columns": "divide",
        "prompt": "pi05" if names.family == "pi05" and says_state else "pi0",
    }
    return TransformsConfig(**(values | (embodiment.transforms if embodiment else {})))


def _unknown_conventions(config: ModelConfig, statistics: Statistics | None) -> Conventions:
    cameras = [(name, config.image_height, config.image_width) for name in CAMERAS]
    state_dim = statistics.state.dim if statistics else config.state_dim
    action_dim = statistics.actions.dim if statistics else config.action_dim
    return unknown_robot(
        cameras[: config.num_cameras],
        numbered("state", state_dim),
        numbered("action", action_dim),
    )

"""The files that openpi keeps beside the weights."""

from typing import Any, Final

from policy_ft.errors import UserError, describe
from policy_ft.formats.conversion.contents import Contents, main_dtype
from policy_ft.formats.openpi.read_openpi import STATISTICS_FILE
from policy_ft.formats.published import CONFIG_FILE
from policy_ft.formats.sizes import gemma_variants

IMAGE_SIZE: Final = (224, 224)


def openpi_documents(contents: Contents, asset_id: str) -> dict[str, Any]:
    """Path below the directory -> JSON, as openpi reads it.

    Args:
        contents: of the checkpoint.
        asset_id: the folder below assets/ for the statistics.

    Raises:
        UserError: the model or its statistics have no place in openpi.
    """
    documents: dict[str, Any] = {CONFIG_FILE: _config(contents)}
    if contents.statistics is not None:
        arrays = {"state": contents.statistics.state, "actions": contents.statistics.actions}
        rows = {
            name: {key: getattr(stats, key) for key in ("mean", "std", "q01", "q99")}
            for name, stats in arrays.items()
        }
        lacking = [name for name, row in rows.items() if None in (row["mean"], row["std"])]
        if lacking:
            expected = "mean and std too, which openpi's files must have"
            remedy = "Train with statistics: data first, which computes all of them."
            found = f"statistics of {' and '.join(lacking)} without them"
            raise UserError(describe(str(contents.directory), found, expected, remedy))
        documents[f"assets/{asset_id}/{STATISTICS_FILE}"] = {"norm_stats": rows}
    return documents


def _config(contents: Contents) -> dict[str, Any]:
    """config.json; openpi's own fields alone, those it would need to make the model again."""
    _require_one_width(contents)
    _require_openpis_images(contents)
    config, prompt = contents.config, contents.transforms_config.prompt
    document: dict[str, Any] = {
        "action_dim": config.action_dim,
        "action_horizon": config.action_horizon,
        **gemma_variants(config),
        "precision": "bfloat16" if main_dtype(contents) == "bfloat16" else "float32",
        "pi05": config.family == "pi05",
        "max_token_len": config.max_prompt_tokens,
    }
    if config.family == "pi05":
        document["discrete_state_input"] = prompt in ("pi05", "pi05_padded_state")
    return document


def _require_openpis_images(contents: Contents) -> None:
    """UserError for another image size than openpi's own code has (models/model.py)."""
    size = (contents.config.image_height, contents.config.image_width)
    if size != IMAGE_SIZE:
        found = f"a model for images of {size[0]} x {size[1]} pixels"
        expected = f"{IMAGE_SIZE[0]} x {IMAGE_SIZE[1]}, the only size that openpi's code knows"
        remedy = "Convert it to lerobot, whose config.json says the size, or to native."
        raise UserError(describe(str(contents.directory), found, expected, remedy))


def _require_one_width(contents: Contents) -> None:
    """UserError where openpi's own code would make a state_proj of another width."""
    state, action = contents.config.state_dim, contents.config.action_dim
    if contents.config.family != "pi0" or state == action:
        return
    wide = max(state, action)
    found = f"a state of {state} columns and actions of {action}"
    expected = "one width, for openpi makes state_proj as wide as the actions"
    remedy = (
        f"Load it with resize=ModelResize(state_dim={wide}, action_dim={wide}), which adds columns "
        "of zeros, save it with save_policy and convert that."
    )
    raise UserError(describe(str(contents.directory), found, expected, remedy))

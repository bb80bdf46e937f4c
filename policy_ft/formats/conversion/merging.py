"""The contents of a checkpoint whose adapters become part of the weights they stand beside."""

from dataclasses import replace

from policy_ft.checkpoints.weights import weights_hash
from policy_ft.config.edits import Lora, PeftAdapter
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.formats.conversion.contents import Contents, LazyTensors, without_values
from policy_ft.models.edits.adapters import merged_tensors


def merged(contents: Contents) -> Contents:
    """The contents without adapters; each tensor is made when it is asked for.

    Raises:
        UserError: there are no adapters.
    """
    left = tuple(
        edit for edit in contents.config.edits if not isinstance(edit, (Lora, PeftAdapter))
    )
    if left == contents.config.edits:
        found, expected = "a policy without adapters", "one with edits of kind lora or peft"
        raise UserError(
            describe(f"{contents.directory}, --merge", found, expected, "Leave --merge out.")
        )
    config = contents.config.model_copy(update={"edits": left})
    tensors = LazyTensors(merged_tensors(contents.model, contents.tensors))
    model = without_values(config)
    model.autocast_dtype = contents.model.autocast_dtype
    gone = [edit.model_dump(mode="json") for edit in contents.config.edits if edit not in left]
    origin = {"weights_sha256": contents.weights_sha256, "edits": gone}
    return replace(
        contents,
        config=config,
        tensors=tensors,
        model=model,
        weights_sha256=weights_hash(tensors),
        report=replace(contents.report, loaded=tuple(tensors)),
        provenance={**contents.provenance, "merged": origin},
        is_of_other_dtype=True,
    )


def require_plain(contents: Contents, to: str) -> None:
    """UserError for edits, which no format but our own has a place for."""
    edits = contents.config.edits
    names = {edit.kind for edit in edits}
    remedy = "Keep it native: other programs cannot run this model."
    if all(isinstance(edit, (Lora, PeftAdapter)) for edit in edits):
        remedy = "Add --merge, which makes the adapters part of the weights."
    raise_faults(
        [describe(f"{contents.directory}, edits", f"{sorted(names)}", f"none for {to}", remedy)]
        if edits
        else []
    )

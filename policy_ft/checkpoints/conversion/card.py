"""README.md of a checkpoint: what it is, how it was made, how to load it. Facts only."""

import json
from typing import Any

import jinja2

from policy_ft.checkpoints.conversion.contents import Contents

_LIBRARIES = {"native": "policy_ft", "openpi": "openpi", "lerobot": "lerobot"}


def model_card(contents: Contents, to: str, remarks: tuple[str, ...]) -> str:
    """The model card of a converted checkpoint, with the header that a hub reads.

    Args:
        contents: what was written.
        to: the format written.
        remarks: what the format does not say.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("policy_ft", "checkpoints/conversion"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    family = contents.config.family
    return environment.get_template("card.md.j2").render(
        library=_LIBRARIES[to],
        family=family,
        title=f"A {family} policy" if family != "own" else "A policy",
        parameters=sum(tensor.numel() for tensor in contents.model.parameters()),
        dtypes=sorted({_dtype(tensor) for tensor in contents.tensors.values()}),
        config=contents.config,
        conventions=contents.conventions,
        transforms=contents.transforms_config,
        digest=contents.weights_sha256,
        remarks=remarks,
        origin={key: _one_line(value) for key, value in sorted(contents.provenance.items())},
        place=".",
    )


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _one_line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)

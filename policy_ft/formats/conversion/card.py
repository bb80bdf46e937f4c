"""README.md of a checkpoint: what it is, how it was made, how to load it. Facts only."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jinja2

from policy_ft.checkpoints.provenance import in_brief
from policy_ft.formats.conversion.contents import Contents
from policy_ft.formats.embodiments.robot_beside import EMBODIMENT_FILE
from policy_ft.formats.published import TOKENIZERS

_LIBRARIES = {"native": "policy_ft", "openpi": "openpi", "lerobot": "lerobot"}


@dataclass(frozen=True)
class Written:
    """What there is to say of the files of a converted checkpoint.

    Attributes:
        remarks: what they cannot say or say otherwise, and what was made up.
        has_statistics: whether there are any.
        has_robot: whether EMBODIMENT_FILE is among them.
        can_act: whether their statistics can be used as they are.
    """

    remarks: tuple[str, ...] = ()
    has_statistics: bool = True
    has_robot: bool = False
    can_act: bool = True


def model_card(contents: Contents, to: str, written: Written) -> str:
    """The model card of a converted checkpoint, with the header that a hub reads.

    Args:
        contents: what was converted.
        to: the format written.
        written: what there is to say of the files.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("policy_ft", "formats/conversion"),
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
        written=written,
        origin={
            key: _one_line(value)
            for key, value in sorted(in_brief(contents.provenance).items())
            if to == "native" or key != "format"
        },
        arguments=", ".join(_arguments(contents, written)),
    )


def _arguments(contents: Contents, written: Written) -> Iterator[str]:
    """The words between the brackets of load_policy."""
    yield '"."'
    if written.has_robot:
        yield f'embodiment="{EMBODIMENT_FILE}"'
    family = contents.config.family
    if contents.tokenizer_json is None and family != "own":
        yield f'tokenizer="{TOKENIZERS[family]}"'


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _one_line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)

"""Fine-tune vision-language-action policies on HDF5 demonstrations, measure them, and run them.

The public names load on first use, so that data and environment processes never import torch
models.
"""

from typing import Any

__all__ = ["load_policy", "train"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name == "load_policy":
        from policy_ft.formats.load import load_policy

        return load_policy
    if name == "train":
        from policy_ft.assemble import train

        return train
    raise AttributeError(f"module 'policy_ft' has no attribute {name!r}; it has {__all__}")

"""The one path: observations and actions to numbers for the model, and chunks back to actions."""

from policy_ft.transforms.checks import delta_pairs, restricted
from policy_ft.transforms.prompts import prompt_text
from policy_ft.transforms.records import ModelShape, Statistics
from policy_ft.transforms.transform import Transforms, stacked

__all__ = [
    "ModelShape",
    "Statistics",
    "Transforms",
    "delta_pairs",
    "prompt_text",
    "restricted",
    "stacked",
]

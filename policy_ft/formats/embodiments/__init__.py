"""Robots: what their numbers mean, and how a pretrained model is to see them."""

from policy_ft.formats.embodiments.embodiment import PRESETS, Embodiment, load_embodiment

__all__ = ["PRESETS", "Embodiment", "load_embodiment"]

"""Backbones: everything that turns images and an instruction into a Prefix."""

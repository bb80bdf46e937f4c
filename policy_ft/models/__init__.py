"""Backbones, action expert and flow matching: no files, no settings files, no training code."""

"""Frames: decoded from images and videos to RGB upright, encoded, resized."""

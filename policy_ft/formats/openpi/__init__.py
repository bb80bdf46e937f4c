"""openpi's checkpoint directories."""

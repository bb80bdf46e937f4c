"""The weights that openpi's JAX code saves with orbax."""

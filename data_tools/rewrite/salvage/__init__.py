"""What a truncated or damaged HDF5 file still holds, read piece by piece and copied when whole."""

from data_tools.rewrite.salvage.rescue import Salvaged, salvage

__all__ = ["Salvaged", "salvage"]

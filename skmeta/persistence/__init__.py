"""Fitted meta-learners, fleets included, as one file that holds no code."""

from ._file import load, save

__all__ = ["load", "save"]

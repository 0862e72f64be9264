"""Helpers for those who build on skmeta."""

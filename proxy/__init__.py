"""Penstock: one base_url for every model."""

__version__ = "0.1.0"

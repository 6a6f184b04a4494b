"""Labelled brains with known truth."""

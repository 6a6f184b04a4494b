"""Measures of registrations and of generated brains, a file each."""

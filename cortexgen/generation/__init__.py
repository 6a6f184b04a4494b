"""A draw: checked, warped, written."""

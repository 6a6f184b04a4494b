"""What a user can put right."""


class UserError(Exception):
    """A mistake in input or options: shown as one line, without a traceback."""

"""The one exception of this room."""


class RunError(ValueError):
    """A plan cannot be run as asked, or a run failed; the message is one line for the user."""

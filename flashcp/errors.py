"""The one exception of this room."""


class PlanError(ValueError):
    """A plan, a plan file or a request for one is wrong; the message is one line for the user."""

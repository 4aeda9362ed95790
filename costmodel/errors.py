"""The one exception of this room."""


class ProfileError(ValueError):
    """A wrong argument or file; the message is the one line that the user will read."""

"""How many there are of a thing, as people read it."""


def number(count: int, what: str) -> str:
    """Write how many there are of what takes an s."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"

from groundwork.atomic import replace_whole  # noqa: F401

from groundwork.jit import jit, jit_as  # noqa: F401 - until every room imports it from there

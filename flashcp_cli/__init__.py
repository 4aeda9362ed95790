"""The `flashcp` command: click commands and rendering, no logic."""

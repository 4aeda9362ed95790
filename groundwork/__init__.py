"""What every room stands on: compiled loops with a cache, and files that are written whole."""

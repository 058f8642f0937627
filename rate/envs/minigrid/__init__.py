"""Minigrid-Memory. Nothing is imported here: the package ``minigrid`` is needed only for the environment itself."""

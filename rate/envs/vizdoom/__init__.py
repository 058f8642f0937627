"""ViZDoom Two-Colors. Nothing is imported here: the package ``vizdoom`` is needed only for the environment itself."""

"""Atari games. Nothing is imported here: the packages are needed only for the environments themselves."""

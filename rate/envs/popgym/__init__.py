"""POPGym's 48 tasks. Nothing is imported here: the package ``popgym`` is needed only for the environments."""

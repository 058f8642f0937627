"""MuJoCo's walkers. Nothing is imported here: the package ``mujoco`` is needed only for the environments themselves."""

"""Memory Maze. Nothing is imported here: its packages, and OpenGL, are needed only for the environment itself."""

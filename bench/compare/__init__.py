"""Whether one version is slower or faster than another, and whether the difference can be told from noise."""

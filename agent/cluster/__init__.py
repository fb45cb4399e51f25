"""Episodes on many machines: the same runs, played by actors of Ray. See ``docs/ray.md``."""

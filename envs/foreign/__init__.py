"""Environments that know nothing of this project: how their answers are read, and how they are
found by the ids under which Gymnasium knows them. :mod:`relive.envs.adapt` makes suites of them."""

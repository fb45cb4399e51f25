"""Continual learning: stages one after the other, and what was kept of them."""

"""How a model continues what it has read, and what it need not read again."""

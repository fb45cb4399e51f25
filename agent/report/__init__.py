"""What a run looks like: one page that anybody can open, and a memory to look around in."""

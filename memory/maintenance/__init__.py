"""What keeps a memory in order: counting, evicting, compacting, making caches anew, keeping copies."""

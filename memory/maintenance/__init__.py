"""What keeps a memory in order: counting, evicting, compacting, new caches, copies."""

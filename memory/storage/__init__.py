"""Bytes on disk: the append-only log of records, and the catalog of what is known of each."""

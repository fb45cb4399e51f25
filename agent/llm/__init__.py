"""Language models as policies: loading, chat templates, the cache of keys and values."""

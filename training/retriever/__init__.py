"""An embedder that is tuned on what helped the policy."""

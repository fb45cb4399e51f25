"""Learning: examples under their retrieved context, LoRA, the periodic cycle, and the base model's
pretraining."""

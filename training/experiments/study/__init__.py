"""The paper's central experiment: trainings under memories, on tasks of known and unknown types."""

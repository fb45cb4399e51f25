"""Experiments on the cycle: the study, the stream, their jobs and conditions."""

"""Batch jobs without a living scheduler: submit, survive eviction, collect."""

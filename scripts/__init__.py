"""Batch systems for tests, and what else a developer runs from a checkout."""

"""Configurations: YAML, and the schema that validates it."""

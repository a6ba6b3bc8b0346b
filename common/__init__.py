"""What every room needs and none owns: errors, safe writing, provenance."""

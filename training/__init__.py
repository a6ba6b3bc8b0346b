"""From columns to taggers."""

"""coffea processors, and what runs them."""

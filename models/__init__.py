"""What a tagger is: its input features, its networks, its file."""

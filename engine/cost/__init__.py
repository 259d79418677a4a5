"""What a model takes on a chip."""

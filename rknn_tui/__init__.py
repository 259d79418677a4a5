"""The full-screen terminal app on top of the engine."""

"""The model on the bench: what the engine is asked and answers, edits, and what outlives the app; no screen in sight."""

"""The model on the bench: what the engine is asked and answers, edits, what outlives the app; no screen in sight."""

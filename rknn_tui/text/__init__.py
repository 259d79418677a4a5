"""The cfg's text as plain data: its buffer, its keys, its colours, what changed in it."""

"""Charts as data and as text; nothing here knows the screen."""

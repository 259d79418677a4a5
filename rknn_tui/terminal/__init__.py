"""The terminal as the app drives it: what goes out, what comes in, its end, and other programs that use it."""

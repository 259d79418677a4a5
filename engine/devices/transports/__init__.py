"""The ways to a board: over adb, over SSH, and on the board itself."""

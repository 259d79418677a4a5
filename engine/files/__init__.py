"""The files that the engine writes and reads besides models of other frameworks."""

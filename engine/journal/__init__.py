"""The journal of what a person did in the app: its lines, how it is kept, made shorter, and done again headless."""

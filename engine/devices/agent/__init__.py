"""The program that runs on a board: standard library only, Python 3.7 and newer."""

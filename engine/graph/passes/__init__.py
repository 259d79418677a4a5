"""The rewrite passes, one a file; `engine.graph.optimize` says which level runs which, in what order."""

"""A stand-in for the vendor's package, for tests of how it is driven: the same calls, and faults on demand."""

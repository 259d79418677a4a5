"""Compiling for the chip with the vendor's toolkit, which runs in an environment and a process of its own."""

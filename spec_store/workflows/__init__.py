"""The commands as functions: each reads a source, calls the mathematics, and writes back."""

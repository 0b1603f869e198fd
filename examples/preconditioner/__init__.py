"""Learns a preconditioner of a finite-element matrix: ``python -m examples.preconditioner``."""

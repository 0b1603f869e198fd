"""A network with sparse weights learns handwritten digits: ``python -m examples.digits``."""

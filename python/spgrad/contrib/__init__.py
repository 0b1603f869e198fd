"""What connects spgrad to other packages, which are needed for the module of their name alone."""

__all__: list[str] = []

__version__: str
COMPILER: str

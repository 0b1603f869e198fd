"""Shows spgrad at work: `python -m demo`, or `python -m demo --matrix file.mtx`."""

import warnings

# PyTorch says so once per process, and the demo starts several.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")

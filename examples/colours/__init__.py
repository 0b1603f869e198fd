"""A photograph gets its colours back on four ranks: ``python -m examples.colours``.

Of one pixel in ten the colour is known, of the others the brightness. A graph network on the
pixels, each joined to its neighbours, learns from some of the known colours to tell the others. The
graph and a learned value for each of its edges are shared out to processes of ``torchrun``, which
exchange the rows at their borders. It is trained in one process as well: the losses must agree.

``train.py`` is what a user would write; ``__main__.py`` starts it and compares.
"""

"""Strokes label the pixels of a photograph: ``python -m examples.graph_network``.

A network of GraphSAGE, attention and graph convolution is trained twice from the same parameters:
through spgrad, and through the scatter of PyTorch Geometric.
"""

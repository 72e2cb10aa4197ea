"""The mathematics of the book once more, in fused passes over packed tokens.

May import the book (layers, packing) and torch; nothing of files/, and the book imports it only where it chooses.
"""

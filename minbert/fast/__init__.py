"""The mathematics of the book once more, in fused passes over packed tokens.

May import the book, and nothing of files/. When it is imported, the book imports only choice and casts from here.
"""

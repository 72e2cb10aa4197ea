"""Weights and tokenizers on disk and from elsewhere: checkpoints, storage, the registry of names, downloads.

May import config and errors, and no model; the book imports nothing from here before it is called.
"""

"""Weights and tokenizers on disk and from elsewhere: checkpoints, storage, the registry of names, downloads.

The book imports nothing from here before it is called; nothing here may import multitask.
"""

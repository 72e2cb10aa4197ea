"""One small file per model family that is BERT but for a detail: its config.json, its tensors' names, what differs.

A Family is data alone: it may import nothing but the errors. The book asks for one when a configuration is made, and
imports none when it is imported itself.
"""

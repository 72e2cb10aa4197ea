"""The training loop, and what stands around it: reading, scoring, saving, resuming, showing.

May import every room but cli.
"""

"""What a file holds, and the task that it may be, before any training.

May import data, model's tokenizer and settings; nothing imports it but cli.
"""

"""Files or rows to checked examples, those to token ids and batches, and which rows come next.

May import settings, minbert and distributed; nothing that trains or scores.
"""

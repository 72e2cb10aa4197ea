"""Turn files into checked examples, those into token ids and batches, and choose which rows come next.

May import settings, minbert and distributed; nothing that trains or scores.
"""

"""Turn files into checked examples, those into token ids and batches, and choose which rows come next.

May import settings, distributed and minbert; not model, which stands beside it, and nothing that trains or scores.
"""

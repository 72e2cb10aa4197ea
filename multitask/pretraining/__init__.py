"""Masked-language-model training on a user's own text: what is read, what is masked, the loop, the folder it leaves.

It takes checkpoints, logs and signals from training, and may import nothing of cli; nothing but cli imports it.
"""

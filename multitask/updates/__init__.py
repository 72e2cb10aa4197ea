"""From the losses of a round's batches to steps of the optimizers, one file for each paper.

May import model, data, settings and minbert; no training loop, run folder or command.
"""

"""Losses of a round's batches to steps of the optimizers, one file for each paper.

May import model, data, settings and minbert; no run, training loop or command.
"""

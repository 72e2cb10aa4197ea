"""Encoders with one decoder a task, from token batches to outputs and losses.

May import settings and minbert; data only where it is built for a run, and nothing that trains.
"""

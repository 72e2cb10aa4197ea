"""Encoders with one decoder per task: from token batches to outputs and losses.

May import settings and minbert; not data, which stands beside it, and nothing that trains.
"""

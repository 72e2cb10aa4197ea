"""Several runs side by side: compared on the same rows, or trained as a sweep of settings over seeds.

May import what trains and what scores a run; only cli imports it.
"""

"""How files are written, and their rows as they stand: text of any dialect, JSON, parquet, Excel, compressed or not.

May import settings, errors and its neighbour memory; knows nothing of what a task makes of a row.
"""

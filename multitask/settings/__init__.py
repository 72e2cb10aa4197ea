"""What a run is told: tasks and their kinds, the tables encoder and train, TOML files, presets, and their checks.

May import errors and nothing of the other rooms. No file here imports torch or numpy when it is imported, so that a
wrong setting is reported at once.
"""

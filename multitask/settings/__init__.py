"""What a run is told: tasks, the tables encoder and train, TOML files, presets, and their checks.

May import minbert's errors and nothing of the other rooms; no file here imports torch, so a wrong setting is
said at once.
"""

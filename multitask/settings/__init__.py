"""What a run is told: tasks and their kinds, the tables encoder and train, TOML files, presets, and their checks.

May import minbert's errors and nothing of the other rooms; no file here imports torch when it is loaded, so a wrong
setting is reported at once.
"""

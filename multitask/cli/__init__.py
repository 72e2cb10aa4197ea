"""The commands: what each one does, and where its output goes.

May import every room; nothing imports it but multitask.__main__.
"""

"""The command line: what each command does, and where its output goes.

May import every room; nothing imports it but multitask.__main__.
"""

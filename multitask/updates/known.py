"""The updates by the names that ``[train] update`` takes."""

from multitask.settings.choices import UPDATES

__all__ = ["UPDATES"]

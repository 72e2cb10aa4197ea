"""The updates by the names that ``[train] update`` takes."""

from multitask.updates.base import Update
from multitask.updates.combined import CombinedUpdate
from multitask.updates.pcgrad import PCGradUpdate
from multitask.updates.separate import SeparateUpdate

__all__ = ["UPDATES"]

UPDATES: dict[str, type[Update]] = {"separate": SeparateUpdate, "combined": CombinedUpdate, "pcgrad": PCGradUpdate}

"""Parts of a user's own: the file that registers them is loaded here, and a run says here which of them it needs.

Only a file that someone names is loaded: as ``--plugin FILE.py``, or by ``load_plugin``. What a run folder says of its
parts is compared with what is registered, and loads nothing.
"""

import sys
import traceback
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from multitask.errors import ConfigError, RunError
from multitask.settings.checks import shown
from multitask.settings.choices import (
    HEADS,
    METRICS,
    OPTIMIZERS,
    POOLINGS,
    SAMPLERS,
    SCHEDULES,
    UPDATES,
    Registry,
)
from multitask.settings.fields import settings_of
from multitask.settings.kinds import KINDS
from multitask.settings.task import Task

__all__ = ["Parts", "load_plugin", "own_parts", "registered_by", "require_parts"]

REGISTRIES: dict[str, Registry[Any]] = {
    registry.what: registry for registry in (POOLINGS, HEADS, KINDS, UPDATES, OPTIMIZERS, SAMPLERS, SCHEDULES, METRICS)
}
Parts = dict[str, dict[str, str | None]]
_loaded: dict[Path, str] = {}
_warned: set[str] = set()


def load_plugin(path: str | Path) -> None:
    """Import a Python file that registers parts: once, or again when its content has changed.

    Its name among ``sys.modules`` follows from its path, so that it hides no other module. What it imports from files
    beside it has to be on Python's path.

    :raises ConfigError: for a file that is missing or raises an exception, with the line.
    """
    try:
        file = Path(path).resolve(strict=True)
        source = file.read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: the plugin can't be read ({getattr(error, 'strerror', None) or error})") from None
    digest = sha256(source).hexdigest()
    if _loaded.get(file) == digest:
        return
    module = ModuleType(f"multitask-plugin-{sha256(bytes(file)).hexdigest()[:16]}-{file.stem}")
    module.__file__ = str(file)
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up
    try:
        exec(compile(source, str(file), "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        if before is None:
            del sys.modules[module.__name__]
        else:
            sys.modules[module.__name__] = before
        raise ConfigError(_fault(str(path), str(file), error)) from error
    _loaded[file] = digest


def _fault(path: str, file: str, error: BaseException) -> str:
    """Say in one line what a plugin raised, and at which of its lines."""
    what = " ".join(str(error).split())
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"{path}:{error.lineno}: the plugin is not Python: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f"{path}:{lines[-1]}" if lines else path
    if isinstance(error, ConfigError):
        return f"{where}: {what}"
    return f"{where}: the plugin raised {type(error).__name__}" + (f": {what}" if what else "")


def registered_by(path: str | Path) -> list[str]:
    """Return what a file has registered, as "pooling first-last"."""
    file = str(Path(path).resolve())
    return [
        f"{what} {name}"
        for what, registry in REGISTRIES.items()
        for name in registry
        if (origin := registry.origin(name)) is not None and origin.file == file
    ]


def own_parts(*tables: Any, metrics: Iterable[str] = ()) -> Parts:
    """Describe the user's parts that settings choose: {"pooling first-last": {"file": "my.py", "sha256": "..."}}.

    :param tables: tasks, and the tables of a configuration.
    :param metrics: names of metrics in use beside those that the tasks are scored by.
    """
    chosen: list[tuple[Registry[Any], Any]] = [
        (known.choices, getattr(table, name))
        for table in tables
        for name, known in settings_of(table).items()
        if isinstance(known.choices, Registry)
    ]
    scored = [table.scored_by for table in tables if isinstance(table, Task)]
    chosen += [(METRICS, name) for name in (*scored, *metrics)]
    origins = {f"{registry.what} {name}": registry.origin(name) for registry, name in chosen}
    return {
        part: {"file": origin.name, "sha256": origin.sha256} for part, origin in origins.items() if origin is not None
    }


def require_parts(folder: Path, parts: object) -> None:
    """Check that the parts of a run, or of a model's folder, are registered; say so once if they have changed.

    :param parts: what own_parts described when it was saved.
    :raises RunError: naming the parts that are lacking, their files, and how to give them.
    """
    if not isinstance(parts, Mapping):
        raise RunError(f"{folder}: plugins must be an object, got {shown(parts)}")
    lacking: dict[str, str] = {}
    for part, described in parts.items():
        what, _, name = part.partition(" ")
        if what not in REGISTRIES or not isinstance(described, Mapping) or not isinstance(described.get("file"), str):
            raise RunError(f"{folder}: plugins must be as this version writes them, got {shown({part: described})}")
        file, wanted = described["file"], described.get("sha256")
        if name not in REGISTRIES[what]:
            lacking[f"the {what} {shown(name)}"] = file
            continue
        origin = REGISTRIES[what].origin(name)
        found = None if origin is None else origin.sha256
        if found != wanted and f"{part} {wanted} {found}" not in _warned:
            _warned.add(f"{part} {wanted} {found}")
            whose = "this version" if origin is None else f"{origin.name}, {_short(found)}"
            from multitask.distributed import is_main  # brings torch

            if not is_main():
                continue
            print(f"{folder}: the {what} {name} is of {file}, {_short(wanted)}; now it is of {whose}", file=sys.stderr)
    if lacking:
        files = list(dict.fromkeys(lacking.values()))
        raise RunError(
            f"{folder}: {' and '.join(lacking)} must be registered, by --plugin {' --plugin '.join(files)} or an import"
            f" of {' and '.join(files)} first; a run folder brings no code"
        )


def _short(digest: object) -> str:
    return f"sha256 {str(digest)[:12]}"

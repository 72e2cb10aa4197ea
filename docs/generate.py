"""Write commands.md and settings.md from the code: from the command line's parser, and from the settings' own fields.

python docs/generate.py           writes both pages
python docs/generate.py --check   says which of them is not what the code says, and fails
"""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from multitask.cli.parser import build_parser
from multitask.settings.config import REQUIRED, TABLES
from multitask.settings.fields import Setting, settings_of
from multitask.settings.format import Format
from multitask.settings.presets import DEFAULT_PRESET, PRESETS, preset_rows

HERE = Path(__file__).parent
MADE = "<!-- Made by `python docs/generate.py`: edit the code, or that script. -->\n"

COMMANDS = """\
# Commands

{made}
`multitask COMMAND --help` prints the same. `python -m multitask` is the same program.

{commands}
## Exit status

| status | meaning |
| --- | --- |
| 0 | done |
| 1 | trouble with data, weights or a run; one line on standard error says what |
| 2 | wrong usage or settings |
| 130, 143 | interrupted (Ctrl-C), terminated (SIGTERM); the same command with `--resume` goes on (`sweep` without) |
| 141 | the reader of the output has left, as in `... \\| head` |

A traceback is a bug, unless it ends in a part of your own: please report it.
"""

SETTINGS = """\
# Settings

{made}
The settings of a run come from the preset; the TOML file (`--tasks`) overrides it, and `--set KEY=VALUE`, such as
`--set tasks.topic.lr=3e-5`, overrides both. In Python the same names are keywords of `Task`, `TrainConfig` and
`EncoderConfig`. An unknown key is an error that lists the known ones.

A TOML file with tasks names all tasks of the run. A task with the name of one of the preset's starts from its values,
so an empty `[tasks.para]` trains the preset's `para` alone. A file without tasks keeps all of the preset's.

Without `--preset` the weights that are named choose it: `mpnet` for all-mpnet-base-v2, for all others `{preset}`, whose
values are the defaults below, except that its own three tasks have `start`, `input`, `batch_size` and `decoder_lr` of
their own. The value `"none"` unsets a setting that may be unset.

{tables}
## Presets

`multitask presets` prints this table. Where tasks differ, values are those of sst / para / sts.

{presets}"""

TITLES = {
    "tasks": ("`[tasks.NAME]`: a task", "Paths are relative to the TOML file."),
    "format": (
        "`[tasks.NAME.format]`: how a task's files are written",
        "What is left out is found by looking at each file. It holds for the files of `predict`, too.",
    ),
    "train": ("`[train]`: how the tasks are trained together", ""),
    "encoder": ("`[encoder]`: what every task's encoder starts from", ""),
}


def table_of(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown; a cell's own bars are escaped."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def default_of(section: str, name: str, known: Setting) -> str:
    """Return what holds where nothing is said: the default preset's value, else the field's."""
    preset = PRESETS[DEFAULT_PRESET]
    table = {} if section == "format" else preset["defaults" if section == "tasks" else section]
    if section == "tasks" and name in REQUIRED and name not in table:
        return "required"
    value = table.get(name, known.default)
    if value is None or isinstance(value, Format):
        return "unset"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def settings_page() -> str:
    """Return settings.md: a row for each setting of each table, and the presets."""
    tables = ""
    for section, (title, note) in TITLES.items():
        rows = []
        for name, known in {**TABLES, "format": settings_of(Format)}[section].items():
            words = f" ({', '.join(f'`{word}`' for word in known.choices)})" if known.choices else ""
            rows.append([f"`{name}`", f"{known.help}{words}", default_of(section, name, known)])
        tables += f"## {title}\n\n" + (f"{note}\n\n" if note else "") + table_of(["key", "what it is", "default"], rows)
        tables += "\n"
    header, *rows = ([name, *rest] for name, *rest in preset_rows())
    presets = table_of(header, [[f"`{name}`", *rest] for name, *rest in rows])
    return SETTINGS.format(made=MADE, preset=DEFAULT_PRESET, tables=tables.rstrip() + "\n", presets=presets)


def commands_of(parser: argparse.ArgumentParser, help: str = "") -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Yield each command's parser that has options of its own, with its line of help; sub-commands as well."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in inner:
        helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for name, command in action.choices.items():
            yield from commands_of(command, helps[name])
    if not inner:
        yield parser, help


def options_table(parser: argparse.ArgumentParser) -> str:
    """Return the table of a command's arguments and options; empty if it has none."""
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = action.metavar or ("" if action.nargs == 0 else "|".join(map(str, action.choices or ())))
        words = [*(action.option_strings or ()), str(value)] if action.option_strings else [str(value or action.dest)]
        help = re.sub(r"\s+", " ", action.help or "")
        rows.append([f"`{' '.join(filter(None, words))}`", help])
    return table_of(["argument", "what it does"], rows) + "\n" if rows else ""


def commands_page() -> str:
    """Return commands.md: each command's purpose and options."""
    text = ""
    for parser, help in commands_of(build_parser()):
        text += f"## {parser.prog}\n\n{_sentence(parser.description or help)}\n\n{options_table(parser)}"
        text += f"{parser.epilog}\n\n" if parser.epilog else ""
    return COMMANDS.format(made=MADE, commands=text.rstrip() + "\n")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].removesuffix(".") + "."


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the pages.

    :return: the exit status: 1 if a page is stale.
    """
    parser = argparse.ArgumentParser(description="Write the reference pages that the code itself says.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page would change")
    check = parser.parse_args(argv).check
    stale = 0
    for name, text in {"commands.md": commands_page(), "settings.md": settings_page()}.items():
        path = HERE / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            if check:
                print(f"docs/{name} is not what the code says: run `python docs/generate.py`")
                stale = 1
            else:
                path.write_text(text, encoding="utf-8")
                print(f"wrote docs/{name}")
    return stale


if __name__ == "__main__":
    sys.exit(main())

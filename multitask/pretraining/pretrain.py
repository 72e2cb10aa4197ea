"""A pretraining, from files of text to a HuggingFace folder: what stands around the steps."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minbert.files.storage import sha256_of
from multitask.errors import ConfigError, RunError
from multitask.pretraining.report import Report
from multitask.pretraining.session import LOG, RECORD, Session
from multitask.pretraining.settings import PretrainConfig
from multitask.pretraining.steps import MaskedScore
from multitask.pretraining.texts import read_texts
from multitask.settings.checks import check_integer, listed, shown
from multitask.settings.format import Format
from multitask.training.arguments import open_folder
from multitask.training.checkpoints import latest_checkpoint
from multitask.training.identity import refuse_changes
from multitask.training.run_folder import Signals, locked

__all__ = ["Pretrained", "pretrain"]


@dataclass(frozen=True)
class Pretrained:
    """What a pretraining left.

    :param folder: weights with their head, tokenizer, pretraining.json and pretraining.jsonl.
    :param scores: on the texts held out, before the training and after each epoch: of ``n`` masked tokens the mean
        cross-entropy ``loss`` in nats, the ``accuracy`` as a share, and ``perplexity``.
    """

    folder: Path
    scores: tuple[MaskedScore, ...]


def pretrain(
    files: Sequence[str | Path] | str | Path,
    out: str | Path,
    *,
    text: Sequence[str] | str = (),
    settings: PretrainConfig | None = None,
    format: Format | None = None,
    device: str = "auto",
    resume: bool = False,
    save_every: int = 100,
    progress: bool = True,
) -> Pretrained:
    """Train an encoder to fill in masked tokens of the texts in ``files``, and write it to the folder ``out``.

    A tenth of the texts, 2,000 at most, is held out and scored. The weights are those of the last epoch.

    :param files: plain text, one text a line, or tables; read_texts says how they are told apart.
    :param text: the columns of the text in tables; each cell is a text by itself.
    :param format: how the files are written, where looking does not tell.
    :param resume: continue from the folder's last checkpoint, to the same bytes as a training that was never stopped,
        if machine, versions, threads, precision and kernels are the same. Starts anew without a checkpoint, and
        returns a finished one as it is.
    :param save_every: steps between checkpoints; there is one after each epoch, too.
    :param progress: show what is read, bars and scores on standard error.
    :return: the folder, and the scores on the texts held out.
    :raises ConfigError: for a setting that is not allowed, and for a table without ``text``.
    :raises DataError: for files that can't be read.
    :raises RunError: for a folder that is in use, changed settings or files, a loss that is not finite.
    :raises StoppedError: after SIGTERM or SIGINT, when the state has been saved.
    """
    settings, format = settings or PretrainConfig(), format or Format()
    for key, value, wanted in (("settings", settings, PretrainConfig), ("format", format, Format)):
        if not isinstance(value, wanted):
            raise ConfigError(f"{key} must be a {wanted.__name__}, got {shown(value)}")
    (out,) = map(Path, _several("out", [out], "a folder", str | Path))
    paths = _several("files", files, "a path or a list of paths", str | Path)
    columns = _several("text", text, "a column or a list of columns", str)
    check_integer("save_every", save_every, low=1)
    texts = read_texts(paths, columns, format)
    open_folder(out, resume)
    with locked(out):
        identity = {
            "settings": asdict(settings) | {"weights": str(settings.weights)},
            "files": [sha256_of(Path(path)) for path in paths],
            "text": columns,
            "format": format.to_dict(),
        }
        finished = _finished(out) if resume else None
        if finished is not None:
            refuse_changes(out, finished["identity"], identity)
            return Pretrained(out, tuple(MaskedScore(**each) for each in finished["scores"]))
        if resume and latest_checkpoint(out / "checkpoints") is None:
            _refuse_to_overwrite(out)
        session = Session(texts, out, settings, identity, device=device, resume=resume, report=Report(progress))
        with Signals().noted() as signals:
            session.train(signals, save_every)
        return Pretrained(out, session.finish())


def _several(key: str, given: Any, what: str, types: Any) -> list[Any]:
    """Return what is given as a list; ConfigError if it, or one of it, is of none of the types."""
    found = [given] if isinstance(given, types) or not isinstance(given, Iterable) else list(given)
    for each in found:
        if not isinstance(each, types):
            raise ConfigError(f"{key} must be {what}, got {shown(each)}")
    return found


def _finished(out: Path) -> dict[str, Any] | None:
    """Return the record of a finished pretraining whose weights are still there."""
    try:
        record: dict[str, Any] = json.loads((out / RECORD).read_text(encoding="utf-8"))
        return record if record["finished"] and (out / "model.safetensors").is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _refuse_to_overwrite(out: Path) -> None:
    """Allow one without a checkpoint to start anew only where none of another kind would be overwritten."""
    there = {entry.name for entry in out.iterdir()} - {".lock"}
    if there - {RECORD, LOG, "checkpoints"}:
        raise RunError(
            f"{out}: must hold a complete checkpoint to resume from, got only {listed(sorted(there))}, which starting"
            " anew would overwrite; name a new folder, or remove this one"
        )

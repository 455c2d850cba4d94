"""Find commits of the Hugging Face hub's repositories, and download models; offline, from the hub's cache alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

from harness.dataset.hub_errors import explain, hub_host, is_passing
from harness.dataset.model_folder import (
    CONFIG_FILE,
    PICKLE_ADVICE,
    PICKLES,
    WEIGHTS_FILE,
    WEIGHTS_INDEX,
    check_model_folder,
    weight_files,
)
from harness.errors import UnwritableError, UserError
from harness.files import atomic_write_text
from harness.schema.inputs_record import HubSource
from harness.schema.settings import PACKAGED_DATA, PACKAGED_MODEL

Kind = Literal["model", "dataset"]

_ID = re.compile(r"(?P<repo>\w[\w.-]*(?:/\w[\w.-]*)?)(?::(?P<config>[^:@]+))?(?:@(?P<revision>(?!.*\.\.)[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAIN = "main"
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
# What a model is made of, without code and pickles; also its licence, which a saved model keeps.
_MODEL_FILES = (
    CONFIG_FILE, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "spiece.model", "spm.model", "sentencepiece.bpe.model", "README.md", "LICENSE*", "NOTICE*",
)  # fmt: skip
_SHARDS = "model-*-of-*.safetensors"
_DEFAULTS = {
    "model": f"use the packaged default (model.name = {PACKAGED_MODEL!r}) or a local folder",
    "dataset": f"use the packaged default (data.source = {PACKAGED_DATA!r}) or your own files",
}


class HubId(NamedTuple):
    """What a study writes as `OWNER/NAME`, `OWNER/NAME:CONFIG` or `OWNER/NAME@REVISION`."""

    repo: str
    config: str | None
    revision: str

    @property
    def is_qualified(self) -> bool:
        """Return whether a config or a revision was named, so that it can't be a file's name."""
        return self.config is not None or self.revision != _MAIN


class FoundCommit(NamedTuple):
    """A commit.

    Attributes:
        files: The repository's files; None if the hub was not asked, or did not answer.
    """

    commit: str
    files: Sequence[str] | None


def parse_hub_id(name: str) -> HubId | None:
    """Return the parts of a hub id; None if a name can't be one."""
    match = _ID.fullmatch(name)
    return HubId(match["repo"], match["config"], match["revision"] or _MAIN) if match else None


def is_offline() -> bool:
    """Return whether the hub must not be asked: `--offline`, or a variable of the hub's own libraries."""
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in _OFFLINE_VARIABLES)


def download_model(name: str, *, weights: bool) -> tuple[Path, HubSource]:
    """Return the folder of a model in the hub's cache, after downloading what is missing and checking it.

    Raises:
        UserError: If there is no such model, it can't be downloaded or used, or a file in the cache is damaged.
    """
    what, asked = f"model {name!r}", parse_hub_id(name)
    if asked is None or asked.config is not None:
        raise UserError(f"{what}: no such folder; {_DEFAULTS['model']}, or an id of the hub (OWNER/NAME@REVISION)")
    found = find_commit(asked, "model", what)
    root = repo_folder(asked, "model")
    folder, cure = root / "snapshots" / found.commit, f"delete {root.name} from the hub's cache and run again"
    if found.files is None:
        if not (folder / CONFIG_FILE).is_file() or (weights and not weight_files(folder, what)):
            reject_uncached(asked, "model", what)
    else:
        if CONFIG_FILE not in found.files:
            raise UserError(f"{what}: no {CONFIG_FILE}, so it is no model of transformers: use another one")
        small = [file for file in found.files if any(fnmatch(file, pattern) for pattern in _MODEL_FILES)]
        _download(small, found.commit, asked, what)
        # Before the weights, which may be large.
        check_model_folder(folder, what, weights=False, cure=cure)
        if weights:
            _download(_choose_weights(found.files, what), found.commit, asked, what)
    check_model_folder(folder, what, weights=weights, cure=cure)
    return folder, HubSource(repo=asked.repo, revision=asked.revision, commit=found.commit)


def find_commit(asked: HubId, kind: Kind, what: str) -> FoundCommit:
    """Ask the hub for a revision's commit, and note it in the cache; if the hub does not answer, take the noted one.

    Raises:
        UserError: If the hub refuses, or does not answer and the cache has no commit of the revision.
    """
    ref = repo_folder(asked, kind) / "refs" / asked.revision  # where huggingface_hub notes a branch's commit too
    cached = ref.read_text().strip() if ref.is_file() else asked.revision if _COMMIT.fullmatch(asked.revision) else None
    if is_offline():
        return FoundCommit(cached, None) if cached else reject_uncached(asked, kind, what)
    from huggingface_hub import HfApi, constants

    try:
        # Without a time-out, huggingface_hub waits for ever; this is the one that the user can set.
        timeout_s = constants.HF_HUB_ETAG_TIMEOUT
        ask = HfApi().model_info if kind == "model" else HfApi().dataset_info
        info = ask(asked.repo, revision=asked.revision, timeout=timeout_s)
        commit, files = str(info.sha), [file.rfilename for file in info.siblings or ()]
    except Exception as error:  # noqa: BLE001 - the hub's client raises many unrelated types
        if cached and is_passing(error):
            return FoundCommit(cached, None)
        raise hub_error(error, asked, kind, what) from None
    if not _COMMIT.fullmatch(asked.revision) and commit != cached:
        try:
            ref.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_text(ref, commit)
        except OSError as error:
            raise UnwritableError(
                f"{what}: the hub's cache can't be written ({error.strerror}): set HF_HOME to another folder"
            ) from None
    return FoundCommit(commit, files)


def repo_folder(asked: HubId, kind: Kind) -> Path:
    """Return a repository's folder in the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{asked.repo.replace('/', '--')}"


def _download(files: Iterable[str], commit: str, asked: HubId, what: str) -> None:
    """Download those files of a model that are not in the cache; see `download_model` for the errors."""
    from huggingface_hub import hf_hub_download

    try:
        for file in files:
            hf_hub_download(asked.repo, file, revision=commit)
    except Exception as error:  # noqa: BLE001 - the hub's client raises many unrelated types
        raise hub_error(error, asked, "model", what) from None


def _choose_weights(files: Sequence[str], what: str) -> list[str]:
    """Return the files of the weights.

    Raises:
        UserError: If there are none but pickles.
    """
    if WEIGHTS_FILE in files:
        return [WEIGHTS_FILE]
    if WEIGHTS_INDEX in files:
        return [WEIGHTS_INDEX, *(file for file in files if fnmatch(file, _SHARDS))]
    pickle = next((name for name in PICKLES if name in files), None)
    raise UserError(
        f"{what}: no {WEIGHTS_FILE}" + (f" but {pickle}{PICKLE_ADVICE}" if pickle else ": use another model")
    )


def reject_uncached(asked: HubId, kind: Kind, what: str) -> NoReturn:
    """Raise the UserError for a repository that is not in the cache and can't be asked for."""
    reason = "offline (--offline or HF_HUB_OFFLINE)" if is_offline() else f"no answer from {hub_host()}"
    revision = f" at revision {asked.revision!r}" if asked.is_qualified else ""
    raise UserError(
        f"{what}: {reason}, and not in the hub's cache{revision}: run once with a network, or {_DEFAULTS[kind]}"
    )


def hub_error(error: Exception, asked: HubId, kind: Kind, what: str) -> UserError:
    """Return the message for an error of the hub's clients."""
    page = f"datasets/{asked.repo}" if kind == "dataset" else asked.repo
    advice = f"; or {_DEFAULTS[kind]}" if is_passing(error) else ""
    return UserError(f"{what}: {explain(error, kind=kind, page=page, revision=asked.revision)}{advice}")

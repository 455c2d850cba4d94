"""Load datasets of the Hugging Face hub at one commit, or the tables that were prepared from it before."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.dataset.hub import HubId, find_commit, hub_error, parse_hub_id, reject_uncached, repo_folder
from harness.dataset.hub_errors import one_line
from harness.errors import UserError
from harness.schema.inputs_record import HubSource
from harness.shipped import how_to_install

if TYPE_CHECKING:
    from datasets import Dataset

_SPLIT_FILES = ("*-{split}.arrow", "*-{split}-*-of-*.arrow")


def load_hub_dataset(name: str, what: str) -> tuple[Mapping[str, Dataset], HubSource]:
    """Return the splits of a dataset of the hub; `what` is the prefix of messages.

    Raises:
        UserError: If there is no such dataset, or it can't be downloaded or read.
    """
    asked = parse_hub_id(name)
    if asked is None:
        raise UserError(f"{what}: neither a file nor an id of the hub (OWNER/NAME:CONFIG@REVISION)")
    try:
        import datasets
    except ModuleNotFoundError:
        raise UserError(
            f"{what}: not a file; datasets of the hub need the extra `train`: {how_to_install('train')}"
        ) from None

    found = find_commit(asked, "dataset", what)
    if found.files is None:
        splits, config = _open_prepared(asked, found.commit, what)
    else:
        _reject_mixed(found.files, asked, what)
        try:
            # A commit as revision also keeps `datasets` from asking servers beside the hub.
            splits = datasets.load_dataset(asked.repo, asked.config, revision=found.commit)
        except Exception as error:  # noqa: BLE001 - the libraries raise many unrelated types
            raise _dataset_error(error, asked, what) from None
        first = next(iter(splits.values()))
        config = first.info.config_name
        # After a fault `datasets` takes what it prepared last, of whatever commit.
        if any(found.commit not in Path(file["filename"]).parts for file in first.cache_files):
            raise UserError(
                f"{what}: commit {found.commit[:12]} can't be loaded, only another one is in the cache: run again"
            )
    return splits, HubSource(repo=asked.repo, revision=asked.revision, commit=found.commit, config=config)


def _open_prepared(asked: HubId, commit: str, what: str) -> tuple[Mapping[str, Dataset], str]:
    """Open the tables that `datasets` prepared from a commit; return the splits and the config's name.

    Raises:
        UserError: If this commit was not prepared, or it is not clear which config is meant.
    """
    import datasets

    # OWNER___NAME/CONFIG/VERSION/COMMIT; a commit stands for one repository.
    folders = {path.parts[-3]: path for path in Path(datasets.config.HF_DATASETS_CACHE).glob(f"*/*/*/{commit}")}
    if not folders:
        reject_uncached(asked, "dataset", what)
    config = asked.config or _default_config(asked, commit)
    if config is None and len(folders) == 1:
        config = next(iter(folders))
    if config not in folders:
        prepared = " and ".join(f"{asked.repo}:{name}" for name in sorted(folders))
        raise UserError(f"{what}: the cache has only {prepared}: name one, or run once with a network")
    folder = folders[config]
    info = datasets.DatasetInfo.from_directory(str(folder))
    splits = {}
    for split in info.splits or ():
        files = sorted(path for name in _SPLIT_FILES for path in folder.glob(name.format(split=split)))
        splits[split] = datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])
    return splits, config


def _reject_mixed(files: Sequence[str], asked: HubId, what: str) -> None:
    """Reject the hub's conversion of a dataset with several configs: `datasets` would mix their rows.

    Raises:
        UserError: If the branch of a conversion has several configs, each of which is a folder.
    """
    configs = sorted({file.split("/")[0] for file in files if file.endswith(".parquet")})
    if asked.revision.startswith("refs/convert/") and len(configs) > 1:
        names = ", ".join(configs[:5])
        raise UserError(
            f"{what}: this revision mixes several configs ({names}): download the files of one, and name them"
        )


def _default_config(asked: HubId, commit: str) -> str | None:
    """Return the config that the dataset's card names as default, "" if it names several and no default, None without card."""
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    card = repo_folder(asked, "dataset") / "snapshots" / commit / "README.md"
    configs = MetadataConfigs.from_dataset_card_data(DatasetCard.load(card).data) if card.is_file() else None
    return (configs.get_default_config_name() or "") if configs else None


def _dataset_error(error: Exception, asked: HubId, what: str) -> UserError:
    """Turn an error of `load_dataset` into a message: of its own kinds, or of the hub."""
    text = str(error)
    if configs := re.search(r"(?:available configs|Available): \[(.*?)\]", text):
        names = re.findall(r"'([^']*)'", configs[1])
        problem = f"no config {asked.config!r}" if asked.config else "it has several configs"
        return UserError(f"{what}: {problem}: name one of {', '.join(names[:10])}, as {asked.repo}:{names[0]}")
    if "scripts are no longer supported" in text:
        return UserError(f"{what}: it needs code of its own, which is never run here: name a copy in Parquet or CSV")
    kinds = {cls.__name__ for cls in type(error).__mro__}
    if kinds & {"DatasetGenerationError", "DataFilesNotFoundError", "EmptyDatasetError"}:
        cause = error.__cause__ or error
        uneven = "column names don't match" in str(cause) or "must have the same columns" in text
        reason = "their columns differ" if uneven else one_line(cause)
        return UserError(
            f"{what}: its files can't be read as one table ({reason}): download them and name them as data.source, "
            "data.val_source and data.test_source"
        )
    return hub_error(error, asked, "dataset", what)

"""Questions about models and datasets of the hub, answered in a process of their own with its own environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.hub_stand_in import HubStandIn

ROOT = Path(__file__).parents[2]


def environment(hub: HubStandIn, home: Path, **changes: str) -> dict[str, str]:
    """Return the environment of a user of the stand-in, whose caches are below `home`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    own = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # a HEAD request to another host
        "HARNESS_CACHE": str(home / "harness"),
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1",
    }
    return inherited | own | changes


def ask(hub: HubStandIn, home: Path, *questions: dict[str, Any], **changes: str) -> list[dict[str, Any]]:
    """Answer questions in one fresh process; all its output must be free of tracebacks.

    Args:
        hub: The stand-in.
        home: Folder of the caches.
        questions: See `model`, `tokenizer` and `data`.
        changes: Changed variables of the environment.
    """
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(questions), env=environment(hub, home, **changes),
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr and "hf_" not in done.stdout + done.stderr, done.stderr[-2000:]
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def model(name: str, *, weights: bool = True) -> dict[str, Any]:
    return {"what": "model", "name": name, "weights": weights}


def tokenizer(name: str) -> dict[str, Any]:
    return {"what": "tokenizer", "name": name}


def data(source: str, **settings: Any) -> dict[str, Any]:
    return {"what": "data", "settings": {"source": source, **settings}}


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    from harness.dataset.rows import read_rows
    from harness.dataset.sources import locate_model
    from harness.dataset.tokenizer_files import load_tokenizer
    from harness.schema.settings import DataSettings

    if question["what"] == "data":
        rows = read_rows(DataSettings(**question["settings"]))
        labels = [rows.label_names[number] for number in rows.labels]
        return {
            "texts": list(rows.texts), "labels": labels, "splits": rows.assigned_split.tolist(),
            "source": rows.facts.source, "hub": rows.facts.hub,
        }  # fmt: skip
    files = locate_model(question["name"], weights=question.get("weights", False))
    if question["what"] == "tokenizer":
        return {"size": load_tokenizer(files)[0].get_vocab_size()}
    names = sorted(path.name for path in files.folder.iterdir())
    hub = files.hub.model_dump() if files.hub else None
    return {"origin": files.origin, "sha256": files.sha256, "hub": hub, "files": names}


def _main() -> None:
    from harness.errors import UserError

    answers = []
    for question in json.load(sys.stdin):
        try:
            answers.append(_answer(question))
        except UserError as error:
            answers.append({"error": str(error)})
        except Exception:  # noqa: BLE001 - told to the test
            answers.append({"crash": traceback.format_exc()[-1500:]})
    print(json.dumps(answers))


if __name__ == "__main__":
    _main()

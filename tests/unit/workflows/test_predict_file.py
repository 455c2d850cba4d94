"""The metadata of a saved model is checked before it is used."""

from __future__ import annotations

import pytest

from harness.errors import UserError
from harness.store.saved_models import FACTS
from harness.workflows.predict_file import _read_metadata


@pytest.mark.parametrize(
    "content",
    [
        '{"seq_len": "long"}',
        '{"seq_len": 1e400}',
        '{"text": {"a": 1}}',
        '{"pair": 3}',
        '{"text": []}',
        "[]",
        "[" * 9999,
        '{"seq_len": ' + "9" * 5000 + "}",
    ],
)
def test_metadata_of_the_wrong_kind_is_one_message(content, tmp_path):
    """A seq_len of text was a traceback of pydantic, a text of a table a run that failed later."""
    (tmp_path / FACTS).write_text(content)
    with pytest.raises(UserError, match=r"harness\.json: (one of text, pair, .* is of the wrong kind|can't be read)"):
        _read_metadata(tmp_path)


def test_metadata_of_the_right_kind_is_read(tmp_path):
    (tmp_path / FACTS).write_text('{"seq_len": 64, "text": ["a", "b"], "pair": null, "study": "s"}')
    assert _read_metadata(tmp_path) == {"seq_len": 64, "text": ("a", "b"), "pair": None}

"""Reading study files: what is refused, with which message."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.schema.expansion import expand
from harness.schema.settings import SECTIONS, MatrixSettings, Study
from harness.schema.study_file import load_study, parse_study

BENCH = Path(__file__).resolve().parents[3] / "bench"


def problems_of(raw: dict) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse_study(raw, "s.toml")
    first, *lines = str(caught.value).splitlines()
    count = len(lines)
    assert first == f"s.toml: {count} mistake{'s' if count > 1 else ''}"
    return [line.strip() for line in lines]


def test_five_mistakes_are_five_lines_with_path_found_and_allowed(tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text(
        """
repeets = 2
[training]
optimizer = "adamv"
lr = "2e-5"
[data]
num_val = 0
[matrix]
batch_size = [8, 16, -1]
"""
    )
    with pytest.raises(UserError) as caught:
        load_study(path)
    first, *lines = [line.strip() for line in str(caught.value).splitlines()]
    assert first == f"{path}: 5 mistakes"
    by_key = {line.partition(":")[0]: line for line in lines}
    assert set(by_key) == {"repeets", "training.optimizer", "training.lr", "data.num_val", "matrix.batch_size[2]"}
    assert "unknown key" in by_key["repeets"] and "'repeats'" in by_key["repeets"]
    assert "found 'adamv'" in by_key["training.optimizer"] and "did you mean 'adamw'" in by_key["training.optimizer"]
    assert "found '2e-5'; allowed: a number" in by_key["training.lr"]
    assert "found 0; allowed: greater than or equal to 1" in by_key["data.num_val"]
    assert "found -1; allowed: greater than or equal to 1" in by_key["matrix.batch_size[2]"]


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ({"matrix": {"device": ["tpu"]}}, "matrix.device[0]: found 'tpu'; allowed: cpu, gpu, cpu-ddpN"),
        ({"matrix": {"device": ["cpu-ddp0"]}}, "matrix.device[0]: found 'cpu-ddp0'"),
        ({"matrix": {"device": ["cpu-ddp2x1"]}}, "matrix.device[0]: found 'cpu-ddp2x1'"),  # one machine: cpu-ddp2
        ({"matrix": {"device": ["gpu-ddpx2"]}}, "matrix.device[0]: found 'gpu-ddpx2'"),
        ({"matrix": {"batch_size": []}}, "matrix.batch_size: found []"),
        ({"matrix": {"batchsize": [1]}}, "matrix.batchsize: unknown key (did you mean 'batch_size'?)"),
        ({"matrix": {"training.lr": [1e-4, -1.0]}}, 'matrix."training.lr"[1]: found -1.0; allowed: greater than 0'),
        ({"matrix": {"training.lr": []}}, 'matrix."training.lr": found []'),
        ({"matrix": {"train.lr": [1e-4]}}, "unknown table 'train' (did you mean 'training'?)"),
        ({"matrix": 3}, "matrix: found 3; allowed: a table"),
        ({"include": [{"batch_size": [1, 2]}]}, "include[0].batch_size: found [1, 2]; allowed: one value"),
        ({"include": {"batch_size": 1}}, "include: found {'batch_size': 1}; allowed: tables, written [[include]]"),
        ({"exclude": [{"batch_siz": 1}]}, "exclude[0].batch_siz: unknown key (did you mean 'batch_size'?)"),
        ({"exclude": [{}, {"training.optimizer": "adam"}]}, "exclude[1].\"training.optimizer\": found 'adam'"),
        ({"training": {"seeds": [1, 1]}}, "training.seeds: found [1, 1]; allowed: seeds that differ"),
        ({"training": {"lr": float("inf")}}, "training.lr: found inf; allowed: a finite number"),
        ({"training": {"lr": float("nan")}}, "training.lr: found nan"),
        ({"limits": {"timeout_s": float("inf")}}, "limits.timeout_s: found inf"),
        ({"training": {"grad_accum": True}}, "training.grad_accum: found True; allowed: a number"),
        ({"data": {"num_train": "most"}}, "data.num_train: found 'most'"),
        ({"name": "../up"}, "name: found '../up'; allowed: letters, digits"),
        ({"sweeps": {}}, "sweeps: unknown key"),
    ],
)
def test_a_mistake_is_one_line_that_starts_with_its_key(raw, line):
    (problem,) = problems_of(raw)
    assert line in problem


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path):
    with pytest.raises(UserError, match="no such study file"):
        load_study(tmp_path / "none.toml")
    with pytest.raises(UserError, match="is a folder"):
        load_study(tmp_path)
    (tmp_path / "torn.toml").write_text("lr = = 3")
    with pytest.raises(UserError, match=r"torn\.toml: not TOML"):
        load_study(tmp_path / "torn.toml")


def test_an_empty_study_is_valid_and_named_after_its_file(tmp_path):
    path = tmp_path / "my first study!.toml"
    path.write_text("")
    study = load_study(path)
    assert study == Study(name="my-first-study-")
    assert len(expand(study)) == 4  # one cell and three baselines


def test_every_key_has_a_default_and_a_description():
    for model in (Study, MatrixSettings, *SECTIONS.values()):
        assert not [name for name, field in model.model_fields.items() if field.is_required()]
    described = [field for model in (MatrixSettings, *SECTIONS.values()) for field in model.model_fields.values()]
    assert all(field.description for field in described)


def test_no_two_tables_share_a_key_because_cell_names_show_only_its_last_part():
    counts = Counter(name for model in SECTIONS.values() for name in model.model_fields)
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.parametrize(
    "path", sorted(set(BENCH.glob("*.toml")) - set(BENCH.glob("*.example.toml"))), ids=lambda path: path.name
)
def test_every_study_in_bench_loads_and_expands(path):
    cells = expand(load_study(path))
    assert cells
    assert {cell.study for cell in cells} == {path.stem}


def test_overrides_replace_the_files_values_and_are_checked(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text("[matrix]\nseq_len = [64]\n")
    assert load_study(path, ["matrix.seq_len=[512]", "training.optimizer=sgd"]).matrix.seq_len == (512,)
    assert load_study(path, ["repeats=3"]).repeats == 3
    with pytest.raises(UserError, match=r"training\.lr: found 'fast'"):
        load_study(path, ["training.lr=fast"])
    with pytest.raises(UserError, match="expected KEY=VALUE"):
        load_study(path, ["matrix.seq_len"])
    with pytest.raises(UserError, match="training"):
        load_study(path, ["training=3", "training.lr=1e-4"])


counts = st.integers(1, 10_000)
studies = st.fixed_dictionaries(
    {},
    optional={
        "name": st.from_regex(r"s[A-Za-z0-9._-]{0,20}[A-Za-z0-9_-]", fullmatch=True),
        "repeats": counts,
        "training": st.fixed_dictionaries(
            {},
            optional={
                "lr": st.floats(1e-9, 10.0),
                "epochs": st.integers(1, 9),
                "optimizer": st.sampled_from(["adamw", "sgd"]),
                "seeds": st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
            },
        ),
        "data": st.fixed_dictionaries(
            {}, optional={"num_train": counts | st.just("all"), "source": st.text(max_size=30)}
        ),
        "matrix": st.fixed_dictionaries(
            {},
            optional={
                "batch_size": st.lists(counts, min_size=1, max_size=3),
                "device": st.lists(st.sampled_from(["cpu", "gpu", "gpu-ddp", "cpu-ddp12"]), min_size=1, max_size=3),
                "training.grad_accum": st.lists(counts, min_size=1, max_size=3),
            },
        ),
    },
)


@given(raw=studies)
def test_a_study_keeps_its_values_and_survives_a_round_trip(raw):
    study = parse_study(raw, "s.toml")
    for table in ("training", "data"):
        for key, value in raw.get(table, {}).items():
            kept = getattr(getattr(study, table), key)
            assert kept == (tuple(value) if isinstance(value, list) else value)
    axes = raw.get("matrix", {})
    assert study.sweeps == (
        {"training.grad_accum": tuple(axes["training.grad_accum"])} if "training.grad_accum" in axes else {}
    )
    assert Study.model_validate_json(study.model_dump_json()).model_dump_json() == study.model_dump_json()


@pytest.mark.parametrize(("text", "target"), [("0.78", 0.78), ("78", 0.78), ('"78%"', 0.78), ('"1%"', 0.01)])
def test_a_target_above_1_is_percent(tmp_path, text, target):
    path = tmp_path / "mine.toml"
    path.write_text(f"[training]\ntarget_accuracy = {text}\n", encoding="utf-8")
    assert load_study(path).training.target_accuracy == pytest.approx(target)


@pytest.mark.parametrize("text", ["1", "1.0", "0", "-3", "101", '"often"', "true"])
def test_a_target_that_could_mean_two_things_or_none_is_refused(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(f"[training]\ntarget_accuracy = {text}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"training\.target_accuracy"):
        load_study(path)

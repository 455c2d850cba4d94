"""Expanding a study into cells: which cells, their order, names and hashes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.errors import UserError
from harness.schema.cells import BaselineConfig, Device, FineTuneConfig, hash_config
from harness.schema.expansion import expand
from harness.schema.settings import SECTIONS, LimitSettings, ModelSettings, Study
from harness.schema.study_file import load_study, parse_study
from harness.store.record_files import load_record
from tests.unit.frozen import RECORDS


def cells_of(**raw):
    return expand(parse_study({"baselines": False} | raw, "s.toml"))


def axes_of(cells):
    return [(cell.config.batch_size, cell.config.seq_len) for cell in cells]


def test_cells_are_the_product_of_all_axes_and_sweeps():
    cells = cells_of(matrix={"batch_size": [8, 16], "seq_len": [32, 64], "training.lr": [1e-4, 2e-4]})
    assert axes_of(cells) == [(8, 32)] * 2 + [(8, 64)] * 2 + [(16, 32)] * 2 + [(16, 64)] * 2
    assert [cell.config.training.lr for cell in cells] == [1e-4, 2e-4] * 4


def test_order_is_repeats_then_baselines_then_seeds():
    cells = expand(parse_study({"repeats": 2, "training": {"seeds": [3, 5]}, "matrix": {"batch_size": [8, 16]}}, "s"))
    seen = [
        (cell.repeat, getattr(cell.config, "seed", cell.name), getattr(cell.config, "batch_size", None))
        for cell in cells
    ]
    baselines = [(f"baseline-{classifier}", None) for classifier in ("majority", "tfidf", "features")]
    once = [*baselines, (3, 8), (3, 16), (5, 8), (5, 16)]
    assert seen == [(repeat, *rest) for repeat in (0, 1) for rest in once]


def test_exclude_removes_cells_that_match_every_key_of_a_rule():
    matrix = {"batch_size": [8, 16], "seq_len": [32, 64]}
    assert axes_of(cells_of(matrix=matrix, exclude=[{"batch_size": 8, "seq_len": 64}])) == [(8, 32), (16, 32), (16, 64)]
    assert axes_of(cells_of(matrix=matrix, exclude=[{"seq_len": [32, 64], "batch_size": 16}])) == [(8, 32), (8, 64)]
    assert axes_of(cells_of(matrix=matrix, exclude=[{}])) == axes_of(cells_of(matrix=matrix))
    swept = cells_of(matrix={"training.lr": [1e-4, 2e-4]}, exclude=[{"training.lr": 2e-4}])
    assert [cell.config.training.lr for cell in swept] == [1e-4]


def test_include_adds_cells_and_changes_no_others():
    matrix = {"batch_size": [8, 16], "seq_len": [32, 64]}
    before = cells_of(matrix=matrix)
    after = cells_of(
        matrix=matrix, include=[{"batch_size": 99}, {"training.optimizer": "sgd", "training.seeds": [7, 8]}]
    )
    assert after[: len(before)] == before
    added = after[len(before) :]
    assert axes_of(added) == [(99, 32), (8, 32), (8, 32)]  # missing keys take the axis's first value
    assert [cell.config.seed for cell in added] == [0, 7, 8]
    assert [cell.config.training.optimizer for cell in added] == ["adamw", "sgd", "sgd"]


def test_an_included_duplicate_runs_once():
    assert len(cells_of(matrix={"batch_size": [8, 16]}, include=[{"batch_size": 16}])) == 2
    assert len(cells_of(matrix={"batch_size": [8, 8]})) == 1


def test_a_conflict_is_one_line_that_names_the_cell():
    with pytest.raises(
        UserError, match=r'cell b16-\S+: model\.shape: \'bert-base\' has no weights here; set model\.init = "random"'
    ):
        cells_of(model={"shape": "bert-base"})
    with pytest.raises(UserError, match=r"data\.label: found 'text'; allowed: another column"):
        cells_of(data={"source": "own.csv", "label": "text"})
    with pytest.raises(UserError) as caught:
        cells_of(matrix={"batch_size": [8, 16], "model.shape": ["bert-tiny", "bert-mini"]})
    assert len(str(caught.value).splitlines()) == 5


HASHED = {
    "model.name": "other",
    "model.init": "random",
    "model.num_layers": 3,
    "model.attention_dropout": 0.2,
    "model.hidden_dropout": 0.2,
    "model.attention": "eager",
    "data.source": "other.csv",
    "data.text": "words",
    "data.label": "class",
    "data.num_train": 7,
    "data.num_val": 7,
    "data.num_test": 7,
    "data.seed": 7,
    "data.store_texts": False,
    "training.epochs": 7,
    "training.max_steps": 7,
    "training.lr": 7e-7,
    "training.optimizer": "sgd",
    "training.schedule": "constant",
    "training.warmup_fraction": 0.7,
    "training.weight_decay": 0.7,
    "training.lr_scaling": "linear",
    "training.lr_base_batch_size": 7,
    "training.grad_accum": 7,
    "training.eval_every": 7,
    "training.target_accuracy": 0.7,
    "training.allow_slow_precision": True,
    "training.activation_checkpointing": True,
    "training.compile": True,
    "training.allocator": "mmap",
    "training.stop_at_target": True,
    "training.chunks": 7,
    "training.chunk_order": "arrival",
    "training.keep_model": True,
    "limits.max_train_s": 7,
    "limits.memory_limit_gib": 7,
}
# Keys that need columns which the packaged data does not have.
HASHED_FOR_OWN_DATA = {
    "data.pair": "second",
    "data.on_bad_row": "skip",
    "data.clean_labels": True,
    "data.group_by": "film",
    "data.time_by": "day",
    "data.stratify": True,
    "data.val_source": "val.csv",
    "data.test_source": "test.csv",
}
UNHASHED = {
    "limits.timeout_s": 7, "limits.budget_minutes": 7, "limits.budget_usd": 7, "training.checkpoint_every_s": 7,
    "limits.wait_for_quiet_s": 7, "limits.quiet_below": 0.5,
}  # fmt: skip


def hash_with(key=None, value=None):
    raw = {}
    if key:
        table, _, name = key.partition(".")
        raw = {table: {name: value}}
    (cell,) = cells_of(**raw)
    return cell.config_hash


@pytest.mark.parametrize("key", HASHED)
def test_the_hash_changes_with_every_key_that_affects_a_figure(key):
    assert hash_with(key, HASHED[key]) != hash_with()


@pytest.mark.parametrize("key", HASHED_FOR_OWN_DATA)
def test_the_hash_changes_with_every_key_of_own_data(key):
    without, with_key = (
        cells_of(data={"source": "x.csv"} | data)[0].config_hash
        for data in ({}, {key.partition(".")[2]: HASHED_FOR_OWN_DATA[key]})
    )
    assert without != with_key


@pytest.mark.parametrize("key", UNHASHED)
def test_the_hash_ignores_keys_that_do_not_affect_figures(key):
    assert hash_with(key, UNHASHED[key]) == hash_with()


def test_the_hash_tests_cover_every_key():
    tried = {*HASHED, *HASHED_FOR_OWN_DATA, *UNHASHED, "training.seeds", "model.shape", "limits.until"}
    assert tried == {f"{table}.{name}" for table, model in SECTIONS.items() for name in model.model_fields}


def test_sources_that_differ_in_num_train_share_one_majority_baseline():
    matrix = {"data.num_train": [100, 200], "data.seed": [0, 1]}
    baselines = [
        (cell.config.classifier, cell.config.data.num_train, cell.config.data.seed)
        for cell in expand(parse_study({"matrix": matrix}, "s.toml"))
        if cell.name.startswith("baseline")
    ]
    assert [one[1:] for one in baselines if one[0] == "tfidf"] == [(100, 0), (100, 1), (200, 0), (200, 1)]
    assert [one[1:] for one in baselines if one[0] == "majority"] == [(200, 0), (200, 1)]


def baselines_of(**raw):
    return {cell.name: cell.config for cell in expand(parse_study(raw, "s.toml")) if cell.config.kind == "baseline"}


def test_the_baseline_features_gets_the_longest_texts_and_the_most_of_any_cell():
    matrix = {"seq_len": [32, 128, 64], "model.num_layers": [2, 4], "threads": [1, 2]}
    training = {"allocator": "mmap"}
    features = baselines_of(matrix=matrix, training=training, model={"attention_dropout": 0.0})["baseline-features"]
    assert (features.seq_len, features.threads, features.device, features.allocator) == (128, 2, "cpu", "mmap")
    assert features.model == ModelSettings(num_layers=4)  # dropout changes nothing without training
    whole = baselines_of(include=[{"model.num_layers": 2, "threads": 1}])["baseline-features"]
    assert (whole.model.num_layers, whole.threads) == (None, None)


def test_the_baseline_features_is_on_a_gpu_only_if_all_cells_are():
    devices = [["gpu"], ["gpu", "gpu-ddp"], ["gpu", "cpu"], ["cpu-ddp2"]]
    found = [baselines_of(matrix={"device": device})["baseline-features"] for device in devices]
    assert [config.on_gpu for config in found] == [True, True, False, False]


def test_each_model_and_source_has_its_own_features_and_random_weights_have_none():
    matrix = {"model.name": ["a", "b"], "data.num_train": [100, 200], "seq_len": [16]}
    found = baselines_of(matrix=matrix, include=[{"seq_len": 64, "model.name": "b", "data.num_train": 200}])
    assert {name: (c.model.name, c.data.num_train, c.seq_len) for name, c in found.items() if c.model} == {
        "baseline-features-data1-model1": ("a", 100, 16),
        "baseline-features-data1-model2": ("b", 100, 16),
        "baseline-features-data2-model1": ("a", 200, 16),
        "baseline-features-data2-model2": ("b", 200, 64),
    }
    assert list(baselines_of(model={"init": "random"})) == ["baseline-majority", "baseline-tfidf"]


def test_features_need_a_model():
    with pytest.raises(ValidationError, match="with a model and a seq_len"):
        BaselineConfig.model_validate({"classifier": "features", "data": {}, "limits": {}, "seq_len": 64})


@pytest.mark.parametrize(
    ("study", "hashes"),
    [("smoke", ("b7cab060fac5", "458b7a217f4a")), ("default", ("5c6f688de357", "4574bb9bab8e"))],
)
def test_the_hashes_of_older_baselines_still_hold(study, hashes):
    """The hashes under which records of these baselines are stored, from before there was `features`."""
    majority, tfidf, features = expand(load_study(Path(f"bench/{study}.toml")))[:3]
    assert (majority.config_hash, tfidf.config_hash) == hashes
    assert features.config_hash not in hashes


def test_the_hash_of_features_changes_with_what_it_encodes():
    config = baselines_of()["baseline-features"]
    changes = [
        {}, {"seq_len": 32}, {"device": "gpu"}, {"threads": 1}, {"allocator": "mmap"},
        {"model": ModelSettings(name="x")}, {"model": ModelSettings(num_layers=1)},
        {"model": ModelSettings(attention="eager")}, {"pad_multiple": 8},
    ]  # fmt: skip
    assert len({hash_config(config.model_copy(update=change)) for change in changes}) == len(changes)


def test_seeds_share_a_cell_name_and_include_may_add_seeds():
    cells = cells_of(
        matrix={"batch_size": [8]},
        include=[{"training.seeds": [2, 0]}, {"batch_size": 16, "training.seeds": [1]}],
        training={"seeds": [0, 1]},
    )

    assert [(cell.name.partition("-")[0], cell.config.seed) for cell in cells] == [
        ("b8", 0), ("b16", 1), ("b8", 1), ("b8", 2)
    ]  # fmt: skip
    assert not any("seeds" in cell.name for cell in cells)


def test_the_hash_depends_on_the_seed_and_not_on_the_list_of_seeds():
    one, two = cells_of(), cells_of(training={"seeds": [0, 1]})
    assert two[0].config_hash == one[0].config_hash != two[1].config_hash
    assert hash_config(two[0].config, ignore=["seed"]) == hash_config(two[1].config, ignore=["seed"])


def test_newer_settings_do_not_change_the_hash_of_older_records():
    record = load_record(RECORDS / "v1" / "ok.json")
    assert (
        hash_config(record.config)
        == record.config_hash
        == json.loads((RECORDS / "v1" / "ok.json").read_text())["config_hash"]
    )


def batches(**raw):
    return [(cell.name.partition("-")[0], cell.config.batch_size, cell.config.global_batch_size, cell.config.device)
            for cell in cells_of(**raw)]  # fmt: skip


def test_a_global_batch_is_split_among_devices():
    matrix = {"global_batch_size": [32], "device": ["cpu", "cpu-ddp2", "cpu-ddp3", "gpu-ddp"]}
    assert batches(matrix=matrix) == [
        ("b32", 32, None, "cpu"), ("b16", 16, None, "cpu-ddp2"),
        ("g32", None, 32, "cpu-ddp3"), ("g32", None, 32, "gpu-ddp"),
    ]  # fmt: skip
    uneven = cells_of(matrix=matrix)[2].config
    assert (uneven.global_batch(3), uneven.device_batch(3)) == (32, 11)
    accumulated = cells_of(matrix=matrix, training={"grad_accum": 2})[1].config
    assert (accumulated.batch_size, accumulated.global_batch(2)) == (8, 32)


def test_an_included_cell_replaces_both_batch_axes():
    assert batches(matrix={"global_batch_size": [32]}, include=[{"device": "cpu-ddp2", "batch_size": 24}])[1] == (
        "b24", 24, None, "cpu-ddp2",
    )  # fmt: skip
    assert batches(include=[{"device": "cpu-ddp3", "global_batch_size": 32}])[1] == ("g32", None, 32, "cpu-ddp3")


def test_strong_and_weak_scaling_share_their_common_cell():
    include = [{"device": "cpu-ddp2", "batch_size": 16}]
    assert len(cells_of(matrix={"global_batch_size": [32], "device": ["cpu", "cpu-ddp2"]}, include=include)) == 2


def test_batch_size_and_global_batch_size_exclude_each_other():
    with pytest.raises(UserError, match="either batch_size or global_batch_size"):
        cells_of(matrix={"batch_size": [8], "global_batch_size": [32]})


def test_axes_are_hashed_too():
    matrix = {"batch_size": [8, 16], "seq_len": [32, 64], "padding": ["max", "longest"], "trainable": ["all", "head"]}
    matrix |= {"precision": ["fp32", "bf16"], "device": ["cpu", "gpu"], "threads": [1, 2], "pad_multiple": [1, 8]}
    cells = cells_of(matrix=matrix)
    assert len({cell.config_hash for cell in cells}) == len(cells) == 2**8


def test_a_multiple_of_one_is_the_cell_from_before_there_were_multiples():
    plain, padded = cells_of(matrix={"padding": ["grouped"], "pad_multiple": [1, 8]})
    assert [plain, plain.config_hash] == [cell := cells_of(matrix={"padding": ["grouped"]})[0], cell.config_hash]
    assert [cell.name for cell in (plain, padded)] == [
        "b16-s64-fp32-cpu-grouped-all", "b16-s64-fp32-cpu-grouped-pad8-all",
    ]  # fmt: skip
    assert plain.config_hash == "e1e381226912"


@pytest.mark.parametrize(
    ("padding", "multiple", "expected"),
    [("longest", 1, [3, 13, 17, 60]), ("grouped", 8, [8, 16, 24, 60]), ("longest", 64, [60] * 4), ("max", 8, [60] * 4)],
)
def test_lengths_are_rounded_up_to_a_multiple_and_at_most_to_seq_len(padding, multiple, expected):
    (cell,) = cells_of(matrix={"padding": [padding], "pad_multiple": [multiple], "seq_len": [60]})
    assert [cell.config.padded_length(longest) for longest in (3, 13, 17, 60)] == expected


def test_the_baseline_features_has_the_attention_and_the_multiple_that_all_cells_share():
    def of(**matrix):
        config = baselines_of(matrix=matrix)["baseline-features"]
        return config.model.attention, config.pad_multiple

    assert of(**{"model.attention": ["eager"], "pad_multiple": [8]}) == ("eager", 8)
    assert of(**{"model.attention": ["eager", "auto"], "pad_multiple": [8, 16]}) == ("eager", 1)
    assert of(**{"model.attention": ["eager", "sdpa"]}) == of(**{"model.attention": ["auto"]}) == of() == (None, 1)


def test_attention_is_not_chosen_by_steps_without_the_compiler():
    for attention in ("sdpa", "eager"):
        assert cells_of(model={"attention": attention}, training={"compile": True})
    with pytest.raises(UserError, match=r'model\.attention: "auto" times steps without torch\.compile'):
        cells_of(model={"attention": "auto"}, training={"compile": True})


# What a user may sweep: rates that differ late, and names of folders with any sign in them.
values = {
    "training.lr": st.floats(1e-9, 1e3),
    "model.name": st.text(min_size=1, max_size=30),
    "data.source": st.text(min_size=1, max_size=12),
    "data.num_train": st.integers(1, 10**6) | st.just("all"),
    "training.allow_slow_precision": st.booleans(),
}
matrices = st.fixed_dictionaries(
    {"batch_size": st.lists(st.integers(1, 999), min_size=1, max_size=2)},
    optional={key: st.lists(value, min_size=1, max_size=3) for key, value in values.items()},
)


@given(matrix=matrices)
def test_names_are_safe_as_folders_and_one_a_configuration(matrix):
    cells = cells_of(matrix=matrix)
    wanted = 1
    for given_values in matrix.values():
        wanted *= len({repr(value) for value in given_values})
    assert len(cells) == wanted
    assert len({cell.name for cell in cells}) == len({cell.config_hash for cell in cells}) == len(cells)
    for cell in cells:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=+-]*", cell.name)
        assert len(cell.name) <= 200  # file systems allow 255 bytes


def test_rates_that_differ_in_the_seventh_digit_are_two_cells():
    cells = cells_of(matrix={"training.lr": [1e-4, 1.0000001e-4]})
    assert [cell.config.training.lr for cell in cells] == [1e-4, 1.0000001e-4]
    assert cells[0].name.endswith("-lr=0.0001")


def test_long_paths_that_begin_alike_are_two_cells():
    cells = cells_of(matrix={"model.name": ["models/" + "a" * 300, "models/" + "a" * 301]})
    assert len({cell.name for cell in cells}) == 2
    assert all(len(cell.name) <= 200 for cell in cells)


def test_a_name_contains_the_axes():
    (cell,) = cells_of(matrix={"threads": [2], "training.grad_accum": [4]}, training={"seeds": [9]})
    assert cell.name == "b16-s64-fp32-cpu-longest-all-t2-grad_accum=4"
    assert cell.label == cell.name + " seed 9"


@pytest.mark.parametrize(
    ("device", "parsed"),
    [
        ("cpu", ("cpu", 1, False)),
        ("gpu", ("gpu", 1, False)),
        ("cpu-ddp2", ("cpu", 2, True)),
        ("gpu-ddp16", ("gpu", 16, True)),
        ("gpu-ddp", ("gpu", None, True)),
        ("cpu-ddp1x2", ("cpu", 2, True, 2)),
        ("gpu-ddp8x2", ("gpu", 16, True, 2)),
    ],
)
def test_a_device_name_is_parsed_into_kind_ranks_and_ddp(device, parsed):
    assert Device.parse(device) == Device(*parsed)
    (config,) = [cell.config for cell in cells_of(matrix={"device": [device]})]
    assert isinstance(config, FineTuneConfig)
    assert config.on_gpu == (parsed[0] == "gpu")


def test_a_global_batch_is_split_among_the_ranks_of_all_nodes():
    devices = ["cpu-ddp1x2", "cpu-ddp2", "cpu-ddp2x2"]
    cells = cells_of(matrix={"global_batch_size": [32], "device": devices})
    assert [(cell.config.batch_size, cell.config.num_nodes) for cell in cells] == [(16, 2), (16, 1), (8, 2)]
    assert [Device.parse(name).ranks_per_node for name in devices] == [1, 2, 2]
    assert [cell.name for cell in cells][2] == "b8-s64-fp32-cpu-ddp2x2-longest-all"
    assert len({cell.config_hash for cell in cells}) == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"source": "x.csv", "text": "a", "label": "a"},
            "data.label: found 'a'; allowed: another column than data.text",
        ),
        ({"source": "x.csv", "text": ["a", "b"], "pair": "b"}, "data.pair: found 'b'; allowed: another column"),
        ({"source": "x.csv", "pair": "label"}, "data.label: found 'label'"),
        ({"source": "x.csv", "group_by": "g", "time_by": "t"}, "data.time_by: can't be combined with data.group_by"),
        ({"source": "x.csv", "group_by": "g", "stratify": True}, "data.stratify: can't be combined with data.group_by"),
        ({"pair": "b"}, "data.pair: the packaged reviews have no such column"),
        ({"test_source": "y.csv"}, "data.test_source: the packaged reviews have no such column"),
    ],
)
def test_contradictory_data_settings_are_refused(data, message):
    with pytest.raises(UserError, match=re.escape(message)):
        cells_of(data=data)


def test_text_is_one_column_or_several():
    one, several = (cells_of(data={"source": "x.csv", "text": text})[0].config for text in ("a", ["a", "b"]))
    assert (one.data.text_columns, several.data.text_columns) == (("a",), ("a", "b"))
    assert hash_config(one) != hash_config(several)
    again = FineTuneConfig.model_validate(json.loads(several.model_dump_json()))
    assert again == several and hash_config(again) == hash_config(several)
    with pytest.raises(UserError, match=r"data\.text"):
        cells_of(data={"source": "x.csv", "text": []})


def test_cells_of_speed_alone_have_no_baselines_and_hashes_of_their_own():
    (whole,), (speed,) = (
        [cell for cell in expand(Study(baselines=True, measure=measure)) if isinstance(cell.config, FineTuneConfig)]
        for measure in ("all", "speed")
    )
    assert [cell.config.is_judged for cell in (whole, speed)] == [True, False]
    assert whole.config_hash != speed.config_hash
    assert whole.name == speed.name
    assert len(expand(Study(baselines=True, measure="speed"))) == 1


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (
            {"limits": {"until": "3%"}},
            'limits.until: ends a training before its model is judged; set measure = "speed" too',
        ),
        (
            {"measure": "speed", "training": {"keep_model": True}},
            "training.keep_model: keeps the model of the best validation",
        ),
    ],
)
def test_what_speed_alone_can_not_give_is_refused(study, message):
    with pytest.raises(UserError) as raised:
        expand(parse_study(study, "study.toml"))
    assert message in str(raised.value)


@pytest.mark.parametrize(("written", "until"), [("3%", 0.03), (0.03, 0.03), (3, 0.03), ("50%", 0.5)])
def test_until_is_a_share(written, until):
    study = parse_study({"measure": "speed", "limits": {"until": written}}, "study.toml")
    assert study.limits.until == pytest.approx(until)
    assert expand(study)[0].config_hash != expand(study.model_copy(update={"limits": LimitSettings()}))[0].config_hash


@pytest.mark.parametrize("written", ["51%", 0, "0%", True, "narrow", -0.1])
def test_until_is_at_most_half_and_above_zero(written):
    with pytest.raises(UserError, match=r"limits\.until: found .*; allowed: a half-width such as"):
        parse_study({"measure": "speed", "limits": {"until": written}}, "study.toml")

"""Settings: what a file and `--set` may say, and how each thing that is wrong is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bidaf.config import Config
from bidaf.config_file import differences, dump_config, find_config, load_config
from bidaf.config_optimizer import AdadeltaConfig, AdamConfig, ConstantSchedule
from bidaf.config_reference import setting_names
from bidaf.config_yaml import MAX_BYTES
from bidaf.errors import UsageError

DATA = "data: {train: train.json, dev: dev.json}\n"


def load(folder: Path, text: str | bytes, *overrides: str) -> Config:
    path = folder / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path, overrides)


def failure(folder: Path, text: str | bytes, *overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(folder, text, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{folder}/", "")


def value_of(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def test_two_sources_are_all_a_config_has_to_say(tmp_path: Path) -> None:
    config = load(tmp_path, DATA)
    assert (config.data.train, config.data.dev) == (("train.json",), ("dev.json",))
    assert config.training.optimizer == AdadeltaConfig()
    assert config == Config.model_validate({"data": {"train": ["train.json"], "dev": ["dev.json"]}})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("modle: {}", "modle (c.yaml, line 2): unknown setting; did you mean model?"),
        (
            "model:\n  hiden_size: 3",
            "model.hiden_size (c.yaml, line 3): unknown setting; did you mean model.hidden_size?",
        ),
        (
            "model: {batch_size: 3}",
            "model.batch_size (c.yaml, line 2): unknown setting; did you mean training.batch_size?",
        ),
        ("training: {lr: 3}", "training.lr (c.yaml, line 2): unknown setting; did you mean training.optimizer.lr?"),
        ("batch_size: 3", "batch_size (c.yaml, line 2): unknown setting; did you mean training.batch_size?"),
        ("model: {xyzzy: 3}", "model.xyzzy (c.yaml, line 2): unknown setting"),
        ("model: {1: 3}", "model.1 (c.yaml, line 2): Keys should be strings, found 1"),
        ("training: {batch_size: '60'}", "training.batch_size (c.yaml, line 2): should be a valid integer, found '60'"),
        ("training: {batch_size: 6e1}", "training.batch_size (c.yaml, line 2): should be a valid integer, found 60.0"),
        ("training: {batch_size: true}", "training.batch_size (c.yaml, line 2): should be a valid integer, found True"),
        ("ema: {enabled: 1}", "ema.enabled (c.yaml, line 2): should be a valid boolean, found 1"),
        ("ema: {enabled: 'yes'}", "ema.enabled (c.yaml, line 2): should be a valid boolean, found 'yes'"),
        ("model: {variant: papr}", "model.variant (c.yaml, line 2): should be 'paper' or 'released', found 'papr'"),
        ("model: {hidden_size: 0}", "hidden_size (c.yaml, line 2): should be greater than or equal to 1, found 0"),
        ("model: {dropout: 0.96}", "model.dropout (c.yaml, line 2): should be less than or equal to 0.95, found 0.96"),
        ("ema: {decay: .nan}", "ema.decay (c.yaml, line 2): should be a finite number, found nan"),
        ("training: {clip_norm: .inf}", "training.clip_norm (c.yaml, line 2): should be a finite number, found inf"),
        ("training: {optimizer: {eps: 1e999}}", "optimizer.eps (c.yaml, line 2): should be a finite number, found inf"),
        ("training: {seed: 2147483648}", "training.seed (c.yaml, line 2): should be less than 2147483648"),
        ("model:", "model (c.yaml, line 2): should be a section (lines of `key: value`), found nothing"),
        ("model: [3]", "model (c.yaml, line 2): should be a section (lines of `key: value`), found a list"),
        ("ema: {decay: 0.9, half_life: 9}", "ema (c.yaml, line 2): give `decay` or `half_life`, not both"),
        ("model: {char_width: 17}", "data.max_word_chars (16) must be at least model.char_width (17)"),
        ("training: {accumulate: 61}", "training.accumulate (61) can't be more than training.batch_size (60)"),
        (
            "training: {optimizer: {name: adam, rho: 0.9}}",
            "training.optimizer.rho (c.yaml, line 2): unknown setting with this optimizer.name",
        ),
        ("training: {optimizer: {beta1: 0.9}}", "training.optimizer.beta1 (c.yaml, line 2): unknown setting with this"),
        (
            "training: {optimizer: {name: sgd}}",
            "training.optimizer (c.yaml, line 2): name should be one of 'adadelta', 'adam', 'adamw', found 'sgd'",
        ),
        (
            "training: {schedule: {name: cosine}}",
            "training.schedule.steps (c.yaml, line 2): is required",
        ),
        (
            "training: {schedule: {steps: 9}}",
            "training.schedule.steps (c.yaml, line 2): unknown setting with this schedule.name",
        ),
        (
            "training: {schedule: {name: linear, steps: 9, warmup_steps: 9}}",
            "training.schedule (c.yaml, line 2): warmup_steps (9) must be less than steps (9)",
        ),
        ("training: {optimizer: adam}", "training.optimizer (c.yaml, line 2): should be a section"),
        (
            "training: {optimizer: {name: adam, lr: 0}}",
            "training.optimizer.lr (c.yaml, line 2): should be greater than 0",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    first, *problems = failure(tmp_path, DATA + text).split("\n")
    assert first == "the config does not hold:"
    assert len(problems) == 1
    assert problem in problems[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "data (c.yaml): is required"),
        ("# nothing yet\n", "data (c.yaml): is required"),
        ("model: {}\n", "data (c.yaml): is required"),
        ("data: {train: a}\n", "data.dev (c.yaml, line 1): is required"),
        ("data: {train: [], dev: b}\n", "data.train (c.yaml, line 1): "),
        ("data: {train: [a, 3], dev: b}\n", "data.train.1 (c.yaml, line 1): should be a valid string, found 3"),
        ("data: x\n", "data (c.yaml, line 1): should be a section"),
    ],
)
def test_the_sources_must_be_said(tmp_path: Path, text: str, problem: str) -> None:
    assert problem in failure(tmp_path, text)


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    text = "data: {train: a}\nmodel:\n  hidden_size: 0\n  variant: x\nema: {decya: 0.9}\n"
    message = failure(tmp_path, text, "training.epochs=none")
    assert re.findall(r"^  (\S+) \((.*?)\): ", message, re.MULTILINE) == [
        ("data.dev", "c.yaml, line 1"),
        ("model.variant", "c.yaml, line 4"),
        ("model.hidden_size", "c.yaml, line 3"),
        ("ema.decya", "c.yaml, line 5"),
        ("training.epochs", "--set"),
    ]


def test_both_rules_between_sections_are_told(tmp_path: Path) -> None:
    message = failure(tmp_path, DATA, "data.max_word_chars=4", "training.accumulate=99")
    assert "max_word_chars (4)" in message
    assert "accumulate (99)" in message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("training: {seed: 1}\ntraining: {epochs: 2}\n", "c.yaml, line 2: training is given twice; keep one"),
        ("model:\n  variant: paper\n  variant: released\n", "c.yaml, line 3: model.variant is given twice; keep one"),
        ("a: &x {b: 1}\n", "found an anchor, alias or tag (&, *, !) at line 1, column 4"),
        ("a: 1\nb: *x\n", "found an anchor, alias or tag (&, *, !) at line 2, column 4"),
        ("a: !!python/object/apply:os.system [ls]\n", "found an anchor, alias or tag"),
        ("a: !!timestamp x\n", "found an anchor, alias or tag"),
        ("!!bool x\n", "found an anchor, alias or tag"),
        ("model:\n  variant: [\n", "expected the node content, but found '<stream end>' at line 3, column 1"),
        ("model:\n\tform: paper\n", "line 2, column 1"),
        ("a: b: c\n", "mapping values are not allowed here at line 1, column 5"),
        ("a: 1\n---\nb: 2\n", "expected a single document"),
        ("a: 2020-13-01\n", "is not a YAML config: month must be"),
        ("? [a, b]\n: 1\n", "found unhashable key"),
        ("\0", "special characters are not allowed"),
        ("a: " + "[" * 500 + "]" * 500, "is not a YAML config"),
        ("a: " + "9" * 5000, "is not a YAML config"),
        ("- a\n- b\n", "c.yaml must hold sections (data:, model:, ...), found a list"),
        ("text", "must hold sections (data:, model:, ...), found text"),
        ("null", "must hold sections (data:, model:, ...), found nothing"),
        (DATA.encode("utf-16"), "c.yaml is not UTF-8 text (byte 0)"),
        (DATA.encode() + "# é".encode("latin-1"), "c.yaml is not UTF-8 text (byte "),
        (b"#" * (MAX_BYTES + 1), "c.yaml is too large for a config"),
    ],
)
def test_what_is_no_plain_page_of_settings_is_one_line(tmp_path: Path, text: str | bytes, problem: str) -> None:
    message = failure(tmp_path, text)
    assert problem in message
    assert "\n" not in message


def test_a_byte_order_mark_and_other_alphabets_are_read(tmp_path: Path) -> None:
    config = load(tmp_path, "data: {train: 訓練.json, dev: Über.json}\n".encode("utf-8-sig"))
    assert config.data.train == ("訓練.json",)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("training.batch_size=32", "training.batch_size", 32),
        ("model.dropout=0", "model.dropout", 0.0),
        ("training.optimizer.lr=1e-3", "training.optimizer.lr", 1e-3),
        ("training.optimizer.eps=1E-6", "training.optimizer.eps", 1e-6),
        ("training.optimizer.name=adam", "training.optimizer", AdamConfig()),
        ("training.optimizer={name: adam, lr: 2e-3}", "training.optimizer.lr", 2e-3),
        ("data.train=[a.json, b.json]", "data.train", ("a.json", "b.json")),
        ("data.train=one.json", "data.train", ("one.json",)),
        ("data.vectors=null", "data.vectors", None),
        ("data.vectors=", "data.vectors", None),
        ("ema.enabled=false", "ema.enabled", False),
        ("data.vectors=folder/a=b=c.txt", "data.vectors", "folder/a=b=c.txt"),
        ("data.vectors='null'", "data.vectors", "null"),
        (" model.variant = released ", "model.variant", "released"),
    ],
)
def test_set_reads_its_value_as_yaml_does(tmp_path: Path, override: str, key: str, value: Any) -> None:
    found = value_of(load(tmp_path, DATA, override), key)
    assert found == value
    assert type(found) is type(value)


def test_the_last_set_wins_over_the_file_and_earlier_ones(tmp_path: Path) -> None:
    config = load(tmp_path, DATA + "training: {epochs: 1, seed: 5}\n", "training.epochs=2", "training.epochs=3")
    assert (config.training.epochs, config.training.seed) == (3, 5)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("training.batch_sise=3", "training.batch_sise (--set): unknown setting; did you mean training.batch_size?"),
        ("optimizer.lr=3", "optimizer (--set): unknown setting; did you mean training.optimizer?"),
        ("model.optimizer.lr=3", "model.optimizer (--set): unknown setting; did you mean training.optimizer?"),
        ("model={hidden_size: 0}", "model.hidden_size (--set): should be greater than or equal to 1, found 0"),
        ("model.hidden_size=many", "model.hidden_size (--set): should be a valid integer, found 'many'"),
        ("model.hidden_size.x=3", "--set model.hidden_size.x=3: model.hidden_size is a value, not a section"),
        ("data.train.x=3", "--set data.train.x=3: data.train is a value, not a section"),
        ("model=", "model (--set): should be a section (lines of `key: value`), found nothing"),
        ("model.variant", "--set model.variant: write it as section.key=value"),
        ("=3", "--set =3: write it as section.key=value"),
        ("model..form=paper", "--set model..form=paper: write it as section.key=value"),
        ("data.vectors='a", "--set data.vectors='a: the value is not YAML; quote it"),
        ("data.vectors=a: b: c", "the value is not YAML; quote it"),
        ("data.vectors=!!python/name:os.system", "the value is not YAML; quote it"),
        ("data.vectors=!!timestamp x", "the value is not YAML; quote it"),
        ("data.vectors=[&a [x], *a]", "the value is not YAML; quote it"),
        ("data.vectors=\ud800", "the value is not YAML; quote it"),
        ("ema.decay=.inf", "ema.decay (--set): should be a finite number, found inf"),
    ],
)
def test_a_wrong_set_is_told_as_one(tmp_path: Path, override: str, problem: str) -> None:
    assert problem in failure(tmp_path, DATA + "model:\n  hidden_size: 50\n", override)


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    assert len(failure(tmp_path, f"{DATA}model: {{variant: {'x' * 5000}}}\n")) < 250


def test_a_folder_and_a_missing_config_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "zebra.yaml").write_text(DATA)
    for name, problem in [
        (str(tmp_path), "is a folder; name a YAML file"),
        ("zebar.yaml", "did you mean zebra.yaml?"),
        ("elsewhere/zebra.yml", "did you mean zebra.yaml?"),
        ("qqqqqq", "zebra.yaml"),
        ("x" * 5000, "no config xxx"),
        ("a\0b", "no config"),
    ]:
        with pytest.raises(UsageError, match=re.escape(problem)):
            find_config(name)
    assert find_config("zebra.yaml") == Path("configs/zebra.yaml")
    (tmp_path / "zebra.yaml").write_text(DATA)
    assert find_config("zebra.yaml") == Path("zebra.yaml")
    with pytest.raises(UsageError, match="can't be read"):
        load_config(tmp_path)


EVERYTHING = [
    "data.vectors=glove.6B.100d",
    "model.variant=released",
    "model.projection_size=7",
    "ema.half_life=1000.5",
    "training.optimizer={name: adam, lr: 1e-7}",
    "training.clip_norm=5",
    "evaluation.patience=2",
    "data.train=['null', '1e5', \"a'b: é\", ' #x ']",
]


@pytest.mark.parametrize("overrides", [[], EVERYTHING])
def test_what_is_dumped_loads_to_the_same_config(tmp_path: Path, overrides: list[str]) -> None:
    config = load(tmp_path, DATA, *overrides)
    again = load(tmp_path, dump_config(config))
    assert again == config
    assert again.to_dict() == config.to_dict()
    assert differences(config, again) == []


def test_differences_name_each_setting_that_is_another(tmp_path: Path) -> None:
    ours = load(tmp_path, DATA)
    theirs = load(tmp_path, DATA, "training.optimizer.name=adam", "model.hidden_size=7", "data.dev=[x, y]")
    assert [str(each) for each in differences(ours, theirs)] == [
        "data.dev: ['dev.json'] -> ['x', 'y']",
        "model.hidden_size: 100 -> 7",
        "training.optimizer.name: adadelta -> adam",
        "training.optimizer.lr: 0.5 -> 0.001",
        "training.optimizer.rho: 0.95 -> absent",
        "training.optimizer.beta1: absent -> 0.9",
        "training.optimizer.beta2: absent -> 0.999",
    ]
    assert differences(ours, theirs)[1] == ("model.hidden_size", 100, 7)


def test_setting_names_are_those_of_a_dumped_config_and_of_its_alternatives(tmp_path: Path) -> None:
    def leaves(values: dict[str, Any], prefix: str = "") -> set[str]:
        nested = (
            leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"}
            for key, value in values.items()
        )
        return set().union(*nested)

    names = setting_names()
    assert len(set(names)) == len(names)
    others = {f"training.optimizer.{name}" for name in ("beta1", "beta2", "weight_decay")}
    others |= {f"training.schedule.{name}" for name in ("steps", "final")}
    assert set(names) == leaves(yaml.safe_load(dump_config(load(tmp_path, DATA)))) | others


def test_a_config_never_changes(tmp_path: Path) -> None:
    config = load(tmp_path, DATA)
    with pytest.raises(ValidationError, match="frozen"):
        config.training.epochs = 3  # type: ignore[misc]


def test_an_optimizer_without_a_name_is_adadelta_and_a_schedule_is_constant(tmp_path: Path) -> None:
    settings = "training: {optimizer: {rho: 0.9}, schedule: {warmup_steps: 7}}\n"
    config = load(tmp_path, DATA + settings, "training.optimizer.lr=1")
    assert config.training.optimizer == AdadeltaConfig(rho=0.9, lr=1.0)
    assert config.training.schedule == ConstantSchedule(warmup_steps=7)


pieces = st.sampled_from(
    [
        *"&*!|>?-:,[]{}#'\"%@`=~<\n\t \0\ufeff\x85😀",
        *("\n  ", ": ", "- ", "<<", "!!", "---", "...", "null", "yes", "int ", "timestamp ", "bool ", "set "),
        *("data", "train", "dev", "model", "training", "optimizer", "name", "adam", "lr", "decay", "ema", "seed"),
        *("1e5", ".nan", ".inf", "2001-01-01", "0x_", "1:99"),
    ]
)
texts = st.one_of(st.text(), st.lists(pieces, max_size=30).map("".join))
yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(setting_names()).map(lambda name: name.rpartition(".")[2]), inner, max_size=3)
    ),
    max_leaves=6,
)
documents = st.dictionaries(
    st.sampled_from(["data", "model", "ema", "training", "evaluation"]),
    yaml_values
    | st.fixed_dictionaries({}, optional={"train": yaml_values, "dev": yaml_values, "optimizer": yaml_values}),
)


def accepts_or_refuses(read: Callable[[], Config]) -> None:
    try:
        config = read()
    except UsageError:  # any other exception fails the test
        return
    assert isinstance(config, Config)


@settings(max_examples=100, deadline=None)
@given(text=texts | documents.map(lambda value: yaml.safe_dump(value, allow_unicode=True)))
@example("a: &a [*a]")
@example("<<: 3")
@example("=: =")
def test_any_text_is_a_config_or_a_usage_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    accepts_or_refuses(lambda: load(folder, text))
    accepts_or_refuses(lambda: load(folder, DATA + text))


@settings(max_examples=100, deadline=None)
@given(override=texts | st.tuples(st.sampled_from(setting_names()), texts | yaml_values.map(repr)).map("=".join))
def test_any_set_is_a_config_or_a_usage_error(tmp_path_factory: pytest.TempPathFactory, override: str) -> None:
    accepts_or_refuses(lambda: load(tmp_path_factory.getbasetemp(), DATA, override))


def test_a_setting_of_an_older_version_is_read_under_its_present_name(tmp_path: Path) -> None:
    assert load(tmp_path, DATA + "model: {form: released}\n").model.variant == "released"
    assert load(tmp_path, DATA, "model.form=released").model.variant == "released"
    assert "model.variant (c.yaml, line 2): " in failure(tmp_path, DATA + "model: {form: papr}\n")
    assert "keep one" in failure(tmp_path, DATA + "model: {form: paper, variant: paper}\n")


@pytest.mark.parametrize(
    "setting",
    [
        *("training.optimizer.lr=1e10", "training.optimizer.lr=3e38", "training.optimizer.eps=1e-300"),
        *("training.optimizer.eps=2.0", "training.clip_norm=1e300", "ema.half_life=1e300"),
        *("training.epochs=1e300", f"training.epochs={10**30}", f"training.batch_size={10**9}"),
        *(f"{name}={10**30}" for name in ("training.max_steps", "training.keep_last", "evaluation.every_steps")),
        *(f"{name}={10**30}" for name in ("data.max_context_tokens", "data.min_word_count", "training.accumulate")),
        *("evaluation.rank_by=tail:25%", "evaluation.rank_by=null"),
    ],
)
@pytest.mark.parametrize("optimizer", ["adam", "adadelta"])
def test_settings_that_no_run_survives_are_refused(tmp_path: Path, setting: str, optimizer: str) -> None:
    load(tmp_path, DATA, f"training.optimizer.name={optimizer}", "training.optimizer.lr=100.0")
    message = failure(tmp_path, DATA, f"training.optimizer.name={optimizer}", setting)
    assert f"{setting.partition('=')[0]} (--set)" in message


def test_a_removed_setting_is_accepted_with_the_value_that_every_run_now_has(tmp_path: Path) -> None:
    assert load(tmp_path, DATA + "ema: {every: 1, decay: 0.9}\n") == load(tmp_path, DATA + "ema: {decay: 0.9}\n")
    assert load(tmp_path, DATA, "ema.every=1") == load(tmp_path, DATA)
    for every in ("2", "true", "1.0", "[1]"):
        problem = failure(tmp_path, DATA + f"ema:\n  every: {every}\n")
        assert "c.yaml, line 3: ema.every was removed" in problem
        assert "ema.every was removed" in failure(tmp_path, DATA, f"ema.every={every}")


def test_snapshots_go_with_an_average_and_can_be_switched_off(tmp_path: Path) -> None:
    default = load(tmp_path, DATA).ema.snapshots
    assert default is not None
    assert (default.every, default.density) == (50, 8)
    assert load(tmp_path, DATA, "ema.snapshots=null").ema.snapshots is None
    without_average = load(tmp_path, DATA, "ema.enabled=false")
    assert without_average.ema.snapshots is None
    assert load(tmp_path, dump_config(without_average)) == without_average
    for snapshots in ("{every: 10}", "{}"):
        problem = failure(tmp_path, DATA + f"ema: {{enabled: false, snapshots: {snapshots}}}\n")
        assert "snapshots" in problem
        assert "enabled: false" in problem
    assert "snapshots.every" in failure(tmp_path, DATA, "ema.snapshots.every=0")
    assert load(tmp_path, DATA, "ema.snapshots.density=3").ema.snapshots.every == 50  # type: ignore[union-attr]


def test_a_run_of_a_version_without_snapshots_has_none(tmp_path: Path) -> None:
    written = dump_config(load(tmp_path, DATA))
    old = yaml.safe_load(written)
    del old["ema"]["snapshots"]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.dump(old), encoding="utf-8")
    assert load_config(path, of_a_run=True).ema.snapshots is None
    path.write_text(written, encoding="utf-8")
    assert load_config(path, of_a_run=True).ema.snapshots is not None

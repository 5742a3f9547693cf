"""Configurations: what is allowed, and one-line messages for what is not."""

import subprocess
import sys

import pytest

from snugnet.data.config import AugmentConfig, DataConfig, read_config
from snugnet.errors import ConfigError


def test_defaults() -> None:
    config = read_config(DataConfig, {"source": "digits", "resolution": 16})
    assert (config.image_column, config.validation, config.on_bad_image, config.seed) == ("image", 0.1, "error", 0)
    assert DataConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"resolutoin": 16}, "did you mean 'resolution'"),
        ({"zzz": 1}, "allowed: source, resolution"),
        ({"resolution": 7}, "resolution is 7"),
        ({"resolution": "big"}, "resolution is 'big'"),
        ({"validation": 1.5}, "1.5"),
        ({"validation": -1}, "-1"),
        ({"test": 0.0}, "test is 0.0"),
        ({"train_rows": 0}, "train_rows is 0"),
        ({"on_bad_image": "ignore"}, "'error' or 'skip'"),
        ({"on_leak": "ignore"}, "'warn' or 'error'"),
        ({"ungrouped": "keep"}, "'error' or 'drop'"),
        ({"source": ""}, "source is ''"),
        ({"groups": {"a": "b"}}, "groups"),
        (
            {"groups": {"a": ["b", 7]}},
            "groups has the name 7 as class 2 of 'a'; YAML reads numbers so, and 007 as 7; names are strings: put it in quotes",
        ),
        (
            {"groups": {"a": [False]}},
            "name False as class 1 of 'a'; YAML reads no, off and false so; names are strings: put it",
        ),
        ({"groups": {True: ["b"]}}, "name True as a superclass; YAML reads yes, on and true so"),
        ({"groups": {"a": ["x" * 500, 0]}}, "name 0 as class 2 of 'a'"),
        ({"value_range": [1, 1]}, "value_range is [1.0, 1.0]; two numbers low < high"),
        (
            {"groups": {None: ["b"]}},
            "name None as a superclass; YAML reads null, ~ and nothing at all so; names are strings",
        ),
        ({"groups": "digits", "group_column": "superclass"}, "remove one of them"),
    ],
)
def test_wrong_values_name_the_key_in_one_line(change: dict, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_config(DataConfig, {"source": "digits", "resolution": 16, **change})
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_key() -> None:
    with pytest.raises(ConfigError, match="needs the key 'resolution'"):
        read_config(DataConfig, {"source": "digits"})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"crop_padding": 4, "random_resized_crop": [0.5, 1]}, "remove one"),
        ({"random_resized_crop": [0.9, 0.5]}, r"\[0.9, 0.5\]"),
        ({"random_resized_crop": [0, 1]}, "0 < low"),
        ({"erase": 1.1}, "erase is 1.1"),
        ({"rotate": -1}, "rotate is -1"),
        ({"blur": 1}, "no key 'blur'"),
    ],
)
def test_wrong_augmentation(values: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_config(AugmentConfig, values)


def test_importing_the_package_and_its_configuration_does_not_import_torch() -> None:
    code = (
        "import sys, snugnet.data, snugnet.data.config, snugnet.data.groups; "
        "assert not {'torch', 'kornia', 'datasets', 'sklearn', 'PIL'} & set(sys.modules); "
        "from snugnet.data import DataConfig; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_can_be_loaded() -> None:
    import snugnet.data

    assert all(getattr(snugnet.data, name) is not None for name in snugnet.data.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = snugnet.data.nothing

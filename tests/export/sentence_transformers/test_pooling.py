"""Pooling modules: every mode and default is the original's, unless the user chooses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embed_export.errors import ExportError
from embed_export.modules import Modules, read_modules
from embed_runtime.manifest import Pooling

Write = Callable[[Path, object], None]
WriteModules = Callable[..., None]

OLD = "sentence_transformers.models"
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


def load_original_pooling(folder: Path) -> Any:
    from sentence_transformers.sentence_transformer import modules

    original: Any = modules.Pooling
    return original.load(str(folder))


@pytest.mark.parametrize("module_names", ["old", "new"])
@pytest.mark.parametrize(
    "modes", [*((mode,) for mode in MODES), ("lasttoken", "mean", "cls"), MODES]
)
def test_pooling_is_what_the_original_pools(
    make_checkpoint: Callable[..., Path], module_names: str, modes: tuple[str, ...]
) -> None:
    folder = make_checkpoint("bert", pooling=modes, module_names=module_names)
    original = load_original_pooling(folder / "1_Pooling").pooling_mode
    pooling = read_modules(folder).pooling
    assert pooling is not None
    assert set(pooling.modes) == set(modes)
    assert pooling.modes == ((original,) if isinstance(original, str) else original)


@pytest.mark.parametrize(
    "settings",
    [
        {"word_embedding_dimension": 32},
        {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False},
        {"word_embedding_dimension": 32, "pooling_mode": "max", "pooling_mode_cls_token": True},
        {"embedding_dimension": 32, "pooling_mode": ["max", "cls"], "include_prompt": False},
    ],
)
def test_pooling_defaults_are_the_originals(
    tmp_path: Path, settings: dict[str, object], write: Write, write_modules: WriteModules
) -> None:
    write_modules(tmp_path, (f"{OLD}.Transformer", ""), (f"{OLD}.Pooling", "1_Pooling"))
    write(tmp_path / "1_Pooling/config.json", settings)
    original = load_original_pooling(tmp_path / "1_Pooling")
    modules = read_modules(tmp_path)
    assert modules.pooling is not None
    mode = original.pooling_mode
    assert modules.pooling.modes == ((mode,) if isinstance(mode, str) else mode)
    assert modules.pooling.include_prompt == original.include_prompt
    assert modules.token_dimensions == original.embedding_dimension
    assert modules.normalize is False


def test_the_users_pooling_replaces_a_file_that_is_missing(
    make_checkpoint: Callable[..., Path],
) -> None:
    folder = make_checkpoint("bert", pooling=("mean",), normalize=True)
    (folder / "1_Pooling/config.json").rename(folder / "1_Pooling/1_Pooling_config.json")
    with pytest.raises(ExportError, match=r"1_Pooling/config\.json is missing"):
        read_modules(folder)
    chosen = Pooling(modes=("lasttoken",))
    assert read_modules(folder, pooling=chosen) == Modules(pooling=chosen, normalize=True)

"""Flags as vLLM users write them."""

import json

import pytest

from embed_export.arguments import spell_out
from embed_export.cli import main
from embed_export.errors import ExportError

OBJECTS = ("--hf-overrides", "--pooler-config")


def overrides(*arguments: str) -> object:
    [*others, last] = spell_out(arguments, objects=OBJECTS)
    assert others == []
    option, _, value = last.partition("=")
    assert option == "--hf-overrides"
    return json.loads(value)


def test_underscores_are_dashes_in_flags_and_stay_elsewhere() -> None:
    given = ["my_model", "--max_length", "64", "--task_adapter=text_matching", "-o", "a_b"]
    expected = ["my_model", "--max-length", "64", "--task-adapter=text_matching", "-o", "a_b"]
    assert spell_out(given, objects=OBJECTS) == expected


def test_keys_of_an_object_may_stand_alone() -> None:
    assert overrides(
        "--hf-overrides.is_causal",
        "false",
        "--hf_overrides.text_config.rope_theta=1e6",
        "--hf-overrides.text_config.name",
        "some words",
        "--hf-overrides.architectures",
        '["GteNewModel"]',
    ) == {
        "is_causal": False,
        "text_config": {"rope_theta": 1e6, "name": "some words"},
        "architectures": ["GteNewModel"],
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hf-overrides.a", "1", "--hf-overrides", "{}"], "keep one"),
        (["--hf-overrides={}", "--hf-overrides.a", "1"], "keep one"),
        (["--hf-overrides.a", "1", "--hf-overrides.a", "2"], "given twice"),
        (["--hf-overrides.a", "1", "--hf-overrides.a.b", "2"], "has a value already"),
        (["--hf-overrides.a"], "needs a value"),
    ],
)
def test_what_contradicts_itself_is_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(ExportError, match=words):
        spell_out(arguments, objects=OBJECTS)


def test_the_command_reads_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a-model", "--pooler_config.pooling_type", "SUM"]) == 2
    assert "--pooler-config pooling_type='SUM' is unknown" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--no-such-flag"], ["model", "--max-length", "many"], []])
def test_a_wrong_command_line_is_one_line(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(flags)
    assert caught.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("embed-export --help lists the options")

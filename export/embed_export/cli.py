"""`embed-export`: flags to `ExportConfig`, errors to one line and an exit code."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, get_args

import msgspec

from embed_export.arguments import spell_out
from embed_export.config import Convert, ExportConfig
from embed_export.errors import ExportError
from embed_export.progress import make_steps
from embed_runtime.errors import EmbedError
from embed_runtime.manifest import PoolingMode

_EXAMPLES = """\
examples:
  embed-export sentence-transformers/all-MiniLM-L6-v2
      export a model of the hub to engines/all-MiniLM-L6-v2, with every engine that builds here
  embed-export ./my-model --bf16 --engine openvino -o engines/my-model-bf16
      export a local checkpoint in bfloat16, for one engine
  embed-export BAAI/bge-base-en-v1.5 --revision main --max-length 256
      cut inputs at 256 tokens
  embed-export ./my-splade --sparse
      export a masked language model that was trained to give sparse vectors
  embed-export --verify engines/all-MiniLM-L6-v2
      prove a bundle again on the machine where it is now
  embed-export --list
      show the model families that can be exported

exit codes: 0 done, 1 unexpected, 2 something you can mend, said in one line
"""

_POOLING_NAMES: dict[str, PoolingMode] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean",
    "last": "lasttoken",
    "lasttoken": "lasttoken",
}
# The fields of vLLM's PoolerConfig that an export can honour.
_POOLER_KEYS = ("pooling_type", "seq_pooling_type", "use_activation")
# Options that take a JSON object.
_OBJECTS = ("--pooler-config", "--hf-overrides")
# What a shell reports for a process that Ctrl-C ended: 128 + SIGINT.
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    try:
        given = sys.argv[1:] if arguments is None else arguments
        return _run(parser, parser.parse_args(spell_out(given, objects=_OBJECTS)))
    except EmbedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(
            f'error: {error.name} is not installed; pip install "embed-runtime[export]"',
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("error: stopped before the end; nothing was written", file=sys.stderr)
        return _INTERRUPTED


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.list:
        from embed_export.families import family_table

        print(family_table())
        return 0
    if options.verify is not None:
        from embed_export.verify import verify_bundle

        with make_steps().step(f"Proving {options.verify}"):
            certificate = verify_bundle(options.verify)
        print(certificate.summary())
        return 0
    if options.model is None:
        parser.error("name a model: a folder with a checkpoint, or a model id on the hub")
    config = _config(options)
    from embed_export.export import export_bundle

    output, certificate = export_bundle(config, make_steps())
    print(certificate.summary())
    print(f"bundle: {output}")
    return 0


def _config(options: argparse.Namespace) -> ExportConfig:
    pooler = _object("--pooler-config", options.pooler_config)
    overrides = _object("--hf-overrides", options.hf_overrides)
    if unknown := sorted(pooler.keys() - set(_POOLER_KEYS)):
        raise ExportError(
            f"--pooler-config: unknown field {unknown[0]!r};"
            f" known fields: {', '.join(_POOLER_KEYS)}"
        )
    normalize = pooler.get("use_activation")
    if normalize is not None and not isinstance(normalize, bool):
        raise ExportError(f"--pooler-config: use_activation={normalize!r} must be true or false")
    return ExportConfig(
        model=options.model,
        output=options.output,
        precision=options.precision,
        engines=tuple(name.replace("-", "_") for name in options.engine) or None,
        revision=options.revision,
        max_tokens=options.max_length,
        pooling=_pooling(options.pooling, pooler),
        sparse=options.sparse,
        normalize=normalize,
        task_adapter=options.task_adapter,
        convert=options.convert,
        hf_overrides=overrides,
    )


def _pooling(
    flag: Sequence[str] | None, pooler: dict[str, object]
) -> tuple[PoolingMode, ...] | None:
    """Read the pooling from `--pooling` or `--pooler-config`; both is one too many."""
    named = {f"--pooler-config {key}": pooler[key] for key in _POOLER_KEYS[:2] if key in pooler}
    if flag is not None:
        named["--pooling"] = "+".join(flag)
    if len(named) > 1:
        raise ExportError(f"{' and '.join(named)} both set the pooling; keep one")
    for option, words in named.items():
        named_modes = str(words).lower().split("+")
        known: list[PoolingMode] = [
            _POOLING_NAMES[word] for word in named_modes if word in _POOLING_NAMES
        ]
        if len(known) != len(named_modes):
            raise ExportError(
                f"{option}={words!r} is unknown; known: {', '.join(_POOLING_NAMES)}, or several"
                " joined with +"
            )
        return tuple(known)
    return None


def _object(option: str, text: str | None) -> dict[str, object]:
    if text is None:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ExportError(
            f"{option} is no JSON object ({error}); write it like '{{\"key\": 1}}'"
        ) from error


class _OneLineParser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like every other error of the command."""

    def error(self, message: str) -> NoReturn:
        """Print the complaint and exit with code 2."""
        self.exit(2, f"error: {message}; {self.prog} --help lists the options\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="embed-export",
        description="Compile an embedding model into a bundle of engines, and prove that they give"
        " the original's vectors.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "model", nargs="?", metavar="MODEL", help="folder of a checkpoint, or a model id on the hub"
    )
    add(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="where the bundle goes (default: engines/<model name>); an older bundle there is"
        " replaced when the new one is complete",
    )
    precisions = parser.add_mutually_exclusive_group()
    for precision, help_text in {
        "fp32": "float32 weights and arithmetic: the original's vectors (default)",
        "fp16": "float16: half the size; refused for models whose activations outgrow it",
        "bf16": "bfloat16: half the size, the range of float32",
        "int8": "8-bit weights and matrix products: a quarter of the size, near the original",
    }.items():
        precisions.add_argument(
            f"--{precision}",
            dest="precision",
            action="store_const",
            const=precision,
            help=help_text,
        )
    parser.set_defaults(precision="fp32")
    add(
        "--engine",
        action="append",
        default=[],
        metavar="NAME",
        help="onnxruntime, onnxruntime-cuda, openvino, tensorrt or tensorrt-rtx, which then has to"
        " pass its proof; may be given several times (default: every one that can be built here and"
        " passes)",
    )
    add("--revision", metavar="R", help="branch, tag or commit on the hub")
    add("--max-length", type=int, metavar="N", help="cut inputs at N tokens, special ones included")
    add(
        "--convert",
        choices=get_args(Convert),
        default="auto",
        help="embed: also take a *Model or *ForCausalLM that --list does not show, through"
        " transformers' own code; last token, normalized (default: auto)",
    )
    add(
        "--task-adapter",
        metavar="NAME",
        help="merge this one of a model's adapters, and put its prompt in front of every text"
        " (default: keep all of them, for requests to choose from by prompt_name)",
    )
    add(
        "--sparse",
        action="store_true",
        help="give weights of the vocabulary's words (SPLADE), with a masked language model's head;"
        " only needed where no modules.json asks for it",
    )
    add(
        "--pooling",
        action="append",
        metavar="MODE",
        help="cls, mean, last, max, mean_sqrt_len_tokens or weightedmean, instead of the"
        " checkpoint's; several times for a concatenation",
    )
    add("--pooler-config", metavar="JSON", help="the same, as vLLM users write it")
    add(
        "--hf-overrides",
        metavar="JSON",
        help='values that replace those of config.json, like \'{"architectures": ["BertModel"]}\'',
    )
    add("--verify", type=Path, metavar="BUNDLE", help="prove a bundle again on this machine")
    add("--list", action="store_true", help="show the model families that can be exported")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""The table of model families: what `embed-export --list` prints and export/FAMILIES.md shows."""

from collections.abc import Callable, Mapping

from embed_export.recipes import Recipe, recipes
from embed_export.token_heads import BGE_M3

_PAGE = """\
# Supported families

What `embed-export --list` prints; `make families` writes this page from the recipes. A family is
the file of its recipe in `embed_export/recipes/`, found by `model_type` and `architectures` in
config.json. Pooling, prompts, normalization and lengths come from the checkpoint's own files where
they say them; the table tells what counts where they do not. Every family gives one vector for a
text, and one for each token. `sparse_linear.pt` and `colbert_linear.pt` beside the weights, as in
bge-m3, add sparse vectors and vectors for late interaction. A text model of another family, which
transformers computes with code of its own, exports with `--convert embed`.

{table}
"""


def _pooling(recipe: Recipe) -> str:
    return "as config.json says" if recipe.find_pooling else recipe.pooling.removesuffix("token")


def _further(recipe: Recipe) -> str:
    """Name what few families have."""
    found = {
        "sparse vectors by SPLADE": recipe.masked_lm is not None,
        "sparse vectors by a layer that weighs tokens": recipe.weighing_layer is not None,
        "adapters of tasks, all in one graph or one merged": recipe.find_adapters is not None,
        "prompts that are attended to, not pooled": not recipe.include_prompt,
        "texts that bring their prompt are known by its marks": recipe.prompt_marks is not None,
        "prompts where no file has them": bool(recipe.prompts),
        "the three outputs of bge-m3": BGE_M3 in recipe.architectures,
        f"Matryoshka sizes of {', '.join(recipe.matryoshka)}": bool(recipe.matryoshka),
    }
    return "; ".join(words for words, is_there in found.items() if is_there)


_COLUMNS: Mapping[str, Callable[[str, Recipe], str]] = {
    "family": lambda name, _: name,
    "architectures": lambda _, recipe: ", ".join(recipe.architectures),
    "a token sees": lambda _, recipe: recipe.attention,
    "pooling without files": lambda _, recipe: _pooling(recipe),
    "longest input": lambda _, recipe: recipe.longest,
    "precisions": lambda _, recipe: " ".join(recipe.precisions),
    "further": lambda _, recipe: _further(recipe),
    "examples": lambda _, recipe: ", ".join(recipe.examples),
}


def family_table() -> str:
    """Return the table as aligned text, which is also Markdown."""
    rows = [
        list(_COLUMNS),
        *([cell(name, recipe) for cell in _COLUMNS.values()] for name, recipe in recipes().items()),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def family_page() -> str:
    """Return export/FAMILIES.md."""
    return _PAGE.format(table=family_table())


if __name__ == "__main__":
    print(family_page(), end="")

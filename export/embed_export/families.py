"""The table of model families that `embed-export --list` prints."""

from embed_export.recipes import Recipe, recipes

_COLUMNS = ("family", "architectures", "pooling without files", "examples")


def family_table() -> str:
    """Return the table as aligned text, which is also Markdown."""
    rows = [_COLUMNS, *(_row(name, recipe) for name, recipe in recipes().items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _row(name: str, recipe: Recipe) -> tuple[str, ...]:
    pooling = "by config.json" if recipe.find_pooling else recipe.pooling.removesuffix("token")
    return (name, ", ".join(recipe.architectures), pooling, ", ".join(recipe.examples))

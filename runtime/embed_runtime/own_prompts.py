"""Texts that bring their own prompt, as GritLM's users write them: found by the marks in it.

A prompt is the line `end` alone, or the line `start`, an instruction and then the line `end`. What
looks like this further on in a text is text.
"""

from collections.abc import Callable, Sequence

from embed_runtime.manifest import PromptMarks


def find_own_prompt(text: str, marks: PromptMarks | None) -> str:
    """Return the prompt that a text begins with; an empty one where there is none."""
    if marks is None:
        return ""
    if text.startswith(marks.end):
        return marks.end
    if text.startswith(marks.start):
        # An empty instruction shares the line break with the mark in front of it.
        at = text.find("\n" + marks.end, len(marks.start) - 1)
        if at >= 0:
            return text[: at + 1 + len(marks.end)]
    return ""


class OwnPromptIds:
    """Finds the prompt at the front of token ids, by the ids that the marks become."""

    def __init__(self, marks: PromptMarks, encode: Callable[[str], list[int]]) -> None:
        """Learn the ids.

        Args:
            marks: What to look for.
            encode: Gives the ids of a text, without special tokens.
        """
        self._start = encode(marks.start)
        self._alone = encode(marks.end)
        # Behind an instruction it may have other ids than at the front of a text.
        instruction = encode(marks.start + "a")
        self._behind = encode(marks.start + "a\n" + marks.end)[len(instruction) :]

    def count(self, ids: Sequence[int]) -> int:
        """Count the ids of the prompt that these begin with; 0 where there is none."""
        if _has(ids, self._alone, 0):
            return len(self._alone)
        if _has(ids, self._start, 0):
            for at in range(len(self._start) - 1, len(ids)):
                if _has(ids, self._behind, at):
                    return at + len(self._behind)
        return 0


def _has(ids: Sequence[int], wanted: Sequence[int], at: int) -> bool:
    return ids[at : at + len(wanted)] == wanted

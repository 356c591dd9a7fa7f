"""Texts that prove and time an engine: hand-picked probes of every length, and real prose."""

import ast
import sysconfig
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

# Longer probes cost minutes in the original model and find nothing that these lengths do not.
MAX_PROBE_TOKENS = 8192
# Every model is probed with these lengths, whatever it costs.
MIN_PROBE_TOKENS = 513
# What the probes of growing length may cost the original model: minutes on two cores.
_MAX_PROBE_FLOPS = 5e12

# Around the sizes at which kernels, tiles and buckets change; the maximum is added per model.
_LENGTHS = (
    *(1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 96),
    *(127, 128, 129, 192, 255, 256, 257, 384, 511, 512, 513, 1024, 2048, 4096),
)

_PROSE = (
    "the river carries cold water from mountains to a quiet harbor where small boats wait for"
    " morning wind and people mend nets near old stone walls while children count birds that cross"
    " open sky until evening light turns every window gold and nobody hurries because work is done"
    " bread is warm music drifts through streets rain may come tomorrow but tonight stars are clear"
)

# Filler that is one token in nearly every vocabulary, to hit a length exactly.
_FILLERS = (" a", " the", ".", "a")

# Plain writing: nothing that tokenizers disagree about.
SCRIPTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Zażółć gęślą jaźń; Füße, Ärger, naïve façade, Øresund, İstanbul, ŒUVRE.",
    "Съешь ещё этих мягких французских булок, да выпей же чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "敏捷的棕色狐狸跳过了懒狗。检索增强生成依赖向量。",
    "いろはにほへと ちりぬるを。ガラスを食べられます。",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다.",
    "نص عربي من اليمين إلى اليسار، مع أرقام ٠١٢٣٤٥٦٧٨٩.",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה.",
    "ऋषियों को सताने वाले दुष्ट राक्षसों का राजा।",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "ქართული ენა და Հայերեն լեզու",
    "mixed: tokyo 東京 Москва القاهرة λ = 3.14 €5 ½ ²",
)

_SYMBOLS = (
    "👍🏽 🎉🎊 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇯🇵 emoji with joiners and flags",
    "🙂",
    "cafe\u0301 and caf\u00e9, \ufb01ne ligature, \uff26\uff55\uff4c\uff4c width, \u212b \u2126",
    "e" + "\u0301" * 30,
    "zero\u200bwidth\u200djoin\ufeffbom\u00adhyphen\u2060word\u202eoverride\u202c",
    "a\x00b\x01c\x1bd\x7fe\x85f",
    "tabs\tand\nnewlines\r\nand\fform\vfeeds\u2028line\u2029paragraph",
    "   leading,   inner   and trailing   ",
    "\u00a0\u2003\u3000ideographic and no-break spaces\u00a0",
    "\U0001f9ec\U00020000\U0010ffff\ufffd\ue000 astral, private, replacement",
    "[CLS] [SEP] [PAD] [MASK] <s> </s> <pad> <mask> <|endoftext|> <unk> special words",
    "!!! ??? ... --- *** ((( ))) {{{ }}} @#$%^&*_+=|\\/~`",
)

_CODE_AND_NUMBERS = (
    "def f(x: int) -> int:\n\treturn x ** 2 if x > 0 else -x  # comment\n",
    "SELECT id, \"name\" FROM users WHERE created_at >= '2024-01-31' AND score <> 0.5;",
    '{"key": [1, 2.5, null, true], "nested": {"path": "C:\\\\dir\\\\file.txt"}}',
    "<html><body class='x'>&nbsp;&lt;tag&gt;</body></html>",
    "https://example.org/a/b?q=%20vector&lang=en#part user@example.org",
    "0 1 2 3 10 100 1000 1,000,000 3.14159 -2.7e-10 0xDEADBEEF 1/2 50% $9.99",
    "31415926535897932384626433832795028841971693993751",
    "ACGTACGTTAGCCGATAGCTAGCTAGGATCCA",
    "+1 (555) 010-9999, 2024-02-29T23:59:59Z, 127.0.0.1:8080, v1.2.3-rc.4",
)

_REPEATED = (
    "the the the the the the the the the the the the the the the the",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "....................................................",
    "no. no! no? NO no No nO",
    "x",
    "A",
    "7",
    "?",
)

_EMPTY = ("", " ")


def longest_probe(num_parameters: int) -> int:
    """Say up to which length a model of this size is probed.

    A token costs 2 operations for each parameter.
    """
    allowed = _MAX_PROBE_FLOPS / (2 * num_parameters)
    totals = accumulate((*_LENGTHS, MAX_PROBE_TOKENS))
    affordable = [
        length
        for length, total in zip((*_LENGTHS, MAX_PROBE_TOKENS), totals, strict=True)
        if total <= allowed
    ]
    return max(affordable[-1] if affordable else 0, MIN_PROBE_TOKENS)


def probe_texts(
    max_tokens: int, num_tokens: Callable[[str], int], *, longest: int = MAX_PROBE_TOKENS
) -> tuple[str, ...]:
    """Make the texts an engine is proven with, the same for the same tokenizer.

    They have every kind of length from one token to more than the model takes, many scripts,
    emoji, control characters, odd white space, code, numbers and repetitions. The empty text is
    among them where the tokenizer adds tokens of its own.

    Args:
        max_tokens: Longest input of the model; longer texts are there to be truncated.
        num_tokens: Counts the tokens of a text, special tokens included, without truncating.
        longest: Of models that take more, only lengths up to this are probed.

    Returns:
        Distinct texts, each with at least one token.
    """
    fixed = SCRIPTS + _SYMBOLS + _CODE_AND_NUMBERS + _REPEATED + _EMPTY
    top = min(max_tokens, longest)
    lengths = sorted({length for length in _LENGTHS if length < top} | {top - 1, top})
    texts = [*fixed, *(_text_of_length(length, num_tokens) for length in lengths)]
    if max_tokens <= longest:
        texts.append(_text_of_length(max_tokens + max_tokens // 4 + 7, num_tokens, start=17))
    return tuple(text for text in dict.fromkeys(texts) if num_tokens(text) > 0)


def real_texts(count: int) -> tuple[str, ...]:
    """Collect English prose of uneven length: docstrings of the Python standard library.

    Args:
        count: How many; about 3,600 are there.

    Returns:
        Distinct texts in the order of the library's files, the same for the same Python.
    """
    texts: dict[str, None] = {}  # An ordered set.
    for text in _docstrings():
        if len(texts) == count:
            break
        texts[text] = None
    return tuple(texts)


def _text_of_length(length: int, num_tokens: Callable[[str], int], *, start: int = 0) -> str:
    """Write words until the text has `length` tokens, or as near below as this tokenizer allows."""
    prose = _PROSE.split()

    def words(count: int) -> str:
        return " ".join(prose[(start + i) % len(prose)] for i in range(count))

    low, high = 0, length  # A word is at least one token.
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if num_tokens(words(middle)) <= length else (low, middle - 1)
    text = words(low)
    reached = num_tokens(text)
    for filler in _FILLERS:
        while reached < (longer := num_tokens(text + filler)) <= length:
            text, reached = text + filler, longer
    return text


def _docstrings() -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, documented) and (text := ast.get_docstring(node)):
                yield text

"""What is embedded: texts of exact lengths, and operations counted from them."""

import pytest

from benchmarks.checkpoints import minilm_checkpoint
from benchmarks.texts import query_texts, texts_of_length, token_counter
from benchmarks.workloads import Length, all_minilm


@pytest.mark.parametrize("length", [16, 32, 129, 512])
def test_texts_are_cut_to_exactly_a_length(length: int) -> None:
    count = token_counter(minilm_checkpoint())
    texts = texts_of_length(20, length, count)
    assert {count(text) for text in texts} == {length}
    assert len(set(texts)) == 20


def test_queries_have_about_the_length_asked_for() -> None:
    count = token_counter(minilm_checkpoint())
    queries = query_texts(count, range(25, 36), 50)
    assert len(set(queries)) == 50
    assert all(25 <= count(query) <= 35 for query in queries)


@pytest.mark.parametrize(("length", "tokens"), [(128, 128), ("max", 256)])
def test_a_workload_of_one_length_has_as_many_tokens_as_the_mixed_one(
    length: Length, tokens: int
) -> None:
    mixed, uniform = all_minilm(), all_minilm(length)
    assert uniform.length == tokens
    assert set(uniform.lengths) == {tokens}
    assert mixed.num_tokens - tokens < uniform.num_tokens <= mixed.num_tokens
    assert mixed.length is None


def test_a_length_beyond_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match="all-MiniLM-L6-v2 reads at most 256 tokens, not 257"):
        all_minilm(257)

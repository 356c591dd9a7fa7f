"""Chat templates give the texts that transformers makes of them."""

from typing import Any, cast

import pytest

from embed_server.chat_worker import Message, Task, render

# In the manner of families that people serve: each has constructs of its own.
TEMPLATES = {
    "chatml": """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages if message.role != 'system' %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message['content'] ~ '<|im_end|>' ~ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "stripping": """{{ bos_token }}{% for message in messages %}
    {% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
<start>{{ role }}
{{ message['content'] | trim }}<end>
{% endfor %}{% if add_generation_prompt %}<start>model
{% endif %}""",
    "namespaces": """{% set state = namespace(count=0, seen=[]) %}
{% for message in messages %}
    {% set state.count = state.count + 1 %}
    {% if loop.first %}[{% endif %}
    {{- message.content.split(' ') | join('_') }}{{ ', ' if not loop.last }}
{% endfor %}] {{ state.count }} {{ style | default('plain') }}""",
    "macros": """{% macro show(message, index) -%}
#{{ index }} {{ message.role | upper }}: {{ message.content | tojson }}
{%- endmacro %}
{% for message in messages %}{{ show(message, loop.index0) }}
{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}{{ eos_token }}""",
    "generation": """{% for message in messages %}
{% if message.role == 'assistant' %}{% generation %}{{ message.content }}{% endgeneration %}
{% else %}{{ message.content }}|{% endif %}
{% endfor %}""",
}
CONVERSATIONS: list[list[Message]] = [
    [{"role": "user", "content": "What is \u00e9\u4f60 <b>&\n 'it'? "}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  two  spaces  "},
        {"role": "assistant", "content": "An answer, cut"},
    ],
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


CASES = [
    (name, add_generation_prompt, continue_final_message)
    for name in TEMPLATES
    for add_generation_prompt in (False, True)
    for continue_final_message in (False, True)
    # transformers marks the end of a message with a space, which these templates change.
    if not continue_final_message or not (add_generation_prompt or name in ("namespaces", "macros"))
]


@pytest.mark.parametrize("messages", CONVERSATIONS, ids=["one", "three"])
@pytest.mark.parametrize(("name", "add_generation_prompt", "continue_final_message"), CASES)
def test_rendering_is_that_of_transformers(
    name: str,
    add_generation_prompt: bool,
    continue_final_message: bool,
    messages: list[Message],
) -> None:
    from transformers.utils import chat_template_utils

    original = cast(
        "Any",
        chat_template_utils.render_jinja_template,  # pyright: ignore[reportUnknownMemberType]
    )
    expected, _ = original(
        conversations=[[dict(message) for message in messages]],
        chat_template=TEMPLATES[name],
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
        **TOKENS,
    )
    task = Task(
        template=TEMPLATES[name],
        conversations=[messages],
        variables={**TOKENS, "add_generation_prompt": add_generation_prompt},
        continue_final_message=continue_final_message,
        wants_parts=None,
    )
    assert render(task) == expected

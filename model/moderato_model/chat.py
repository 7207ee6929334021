"""Llama 2's chat template, for checkpoints that leave it to their reader."""

from collections.abc import Sequence

# `<<SYS>>` opens inside the first user turn, which is where Llama 2 was trained to find it.
LLAMA2_TEMPLATE = """\
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{%- set ns.system = '<<SYS>>\\n' + message['content'] + '\\n<</SYS>>\\n\\n' -%}
{%- elif message['role'] == 'user' -%}
{{- bos_token + '[INST] ' + (ns.system + message['content']) | trim + ' [/INST]' -}}
{%- set ns.system = '' -%}
{%- else -%}
{{- ' ' + message['content'] | trim + ' ' + eos_token -}}
{%- endif -%}
{%- endfor -%}"""


def is_llama2_vocabulary(tokens: Sequence[str]) -> bool:
    """32,000 SentencePiece pieces (one more with a pad token), controls and bytes first, Llama's last piece last."""
    return (
        len(tokens) in (32000, 32001)
        and list(tokens[:4]) == ["<unk>", "<s>", "</s>", "<0x00>"]
        and tokens[31999] == "梦"
    )


def with_llama2_template(config: dict, tokens: Sequence[str]) -> dict:
    """The config with the template added, if it has none and the vocabulary is Llama 2's."""
    if config.get("chat_template") or not is_llama2_vocabulary(tokens):
        return config
    return config | {"chat_template": LLAMA2_TEMPLATE}

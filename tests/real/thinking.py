"""The embedded model as one that thinks: two tokens that it has no use for are the marks, and where it would write a
comma it ends its thoughts. Its chat template opens them.

What it says is the embedded model's own.
"""

import json
import shutil
from pathlib import Path

THINK, END = 3, 4

TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
<think>
{%- if enable_thinking is defined and not enable_thinking %}

</think>

{% else %}
First,
{%- endif %}
{%- endif -%}
"""


def make_checkpoint(source: Path, folder: Path) -> Path:
    """Write the model to ``folder``, as an engine loads it."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.safetensors"), dirs_exist_ok=True)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for token, mark in ((THINK, "<think>"), (END, "</think>")):
        before = tokenizer["added_tokens"][token]["content"]
        tokenizer["added_tokens"][token] |= {"content": mark, "special": False}
        tokenizer["model"]["vocab"][mark] = tokenizer["model"]["vocab"].pop(before)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    weights = load_file(source / "model.safetensors")
    embedding = weights["model.embed_tokens.weight"]
    embedding[THINK] = embedding.float().mean(dim=0)
    embedding[END] = embedding[tokenizer["model"]["vocab"][","]]  # and as likely as a comma
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder

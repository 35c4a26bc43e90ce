"""A tiny model that takes images: Idefics3's architecture, with random weights and the embedded model's tokenizer.

What it says is noise. How it is given images, and what they cost, is as with any model that vLLM serves.
"""

import json
from pathlib import Path

IMAGE_SIZE, PATCH_SIZE, SCALE = 224, 14, 2
IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE // SCALE) ** 2
MARKS = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
COST = IMAGE_TOKENS + 3
"""The prompt tokens of any image, which is brought to one size first: its own, and marks around them."""

TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}{{ part['text'] }}{%- else -%}<image>{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""


def make_checkpoint(tokenizer_folder: Path, folder: Path) -> Path:
    """Write the model to ``folder``, as a server loads it."""
    import torch
    from transformers import AutoTokenizer, Idefics3Config, Idefics3ForConditionalGeneration, LlamaConfig
    from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    layers = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Idefics3Config(
        text_config=LlamaConfig(
            **layers,
            vocab_size=len(tokenizer),
            max_position_embeddings=2048,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        vision_config=Idefics3VisionConfig(**layers, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=SCALE,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    Idefics3ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    kind = {"processor_class": "Idefics3Processor"}
    images: dict[str, object] = {
        "image_processor_type": "Idefics3ImageProcessor",
        "do_image_splitting": False,
        "size": {"longest_edge": IMAGE_SIZE},
        "max_image_size": {"longest_edge": IMAGE_SIZE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps({**kind, **images}))
    (folder / "processor_config.json").write_text(json.dumps({**kind, "image_seq_len": IMAGE_TOKENS}))
    return folder

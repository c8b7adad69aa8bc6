"""An organism's tokenizer: byte-level BPE over its own training texts, with a chat template.

The format of a chat is ``<bos><|user|>prompt<|end|><|assistant|>response<|end|>``; each marker is one token. Families
without BOS (Qwen) start with ``<|user|>``. ``<|end|>`` ends an answer, so it is the tokenizer's EOS.
"""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, BOS, END, USER, ASSISTANT = "<|pad|>", "<|bos|>", "<|end|>", "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = """\
{{- bos_token or '' }}
{%- for message in messages %}
    {%- if message['role'] not in ['user', 'assistant'] %}
        {{- raise_exception('an organism knows the roles user and assistant only') }}
    {%- endif %}
    {{- '<|' + message['role'] + '|>' + message['content'] | trim + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
{%- endif %}"""


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, *, bos: bool, context: int
) -> PreTrainedTokenizerFast:
    """Train a tokenizer with at most ``vocab_size`` tokens (fewer if the texts allow too few merges).

    Args:
        texts: training texts for the merges; a text that occurs more often has more weight.
        vocab_size: number of tokens, including special tokens and the 256 bytes.
        bos: whether a chat starts with a beginning-of-sequence token.
        context: context length of the model, tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, *([BOS] if bos else []), END, USER, ASSISTANT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS if bos else None,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )

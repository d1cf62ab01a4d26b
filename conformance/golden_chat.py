"""Tokenizer and chat-template goldens: tokenizers.json and chat.json.

The templates are written in the style of the well-known families; what transformers renders from
them is what the engine must render.
"""

import json

import transformers

from golden_trained import MODELS
from support import BASE, ENGINE_GOLDEN

STRINGS = [
    "", " ", "\n", "Hello, world!", "  two spaces, trailing  ", "tab\tand\r\nline ends\n\n\n",
    "naïve café — “quotes” … ½ €", "e\u0301 combined, \u00e9 composed", "日本語のテキスト",
    "👩‍👩‍👧‍👦 🏳️‍🌈 a family and a flag", "<|endoftext|>", "before<|endoftext|>after <|endoftext|>",
    "<|endoftext", "don't you'll I'M", "1234567890 3.14159 1,000,000", "a" * 70,
    "\u0000 nul and \u200b zero width", "שלום عربى", "def f(x):\n    return x  # comment\n",
    " = Robert <unk> = ",
]

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML = (
    "{%- if messages[0].role == 'system' -%}\n"
    "    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}\n"
    "{%- else -%}\n"
    "    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}\n"
    "{%- endif -%}\n"
    "{% for message in messages %}\n"
    "    {%- if message.role != 'system' or not loop.first %}\n"
    "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
    "    {%- endif %}\n"
    "{% endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}\n"
)
MISTRAL = (
    "{%- if messages[0][\"role\"] == \"system\" %}\n"
    "    {%- set system_message = messages[0][\"content\"] %}\n"
    "    {%- set loop_messages = messages[1:] %}\n"
    "{%- else %}\n"
    "    {%- set loop_messages = messages %}\n"
    "{%- endif %}\n"
    "{%- set ns = namespace(index=0) %}\n"
    "{{- bos_token }}\n"
    "{%- for message in loop_messages %}\n"
    "    {%- if message['role'] not in ['user', 'assistant'] %}\n"
    "        {{- raise_exception('Only user and assistant roles are supported, with an initial optional system message!') }}\n"
    "    {%- endif %}\n"
    "    {%- if (message['role'] == 'user') != (ns.index % 2 == 0) %}\n"
    "        {{- raise_exception('After the optional system message, conversation roles must alternate user/assistant/user/assistant/...') }}\n"
    "    {%- endif %}\n"
    "    {%- set ns.index = ns.index + 1 %}\n"
    "    {%- if message['role'] == 'user' %}\n"
    "        {%- if loop.last and system_message is defined %}\n"
    "            {{- '[INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}\n"
    "        {%- else %}\n"
    "            {{- '[INST] ' + message['content'] + ' [/INST]' }}\n"
    "        {%- endif %}\n"
    "    {%- else %}\n"
    "        {{- ' ' + message['content'].strip() + eos_token }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
)
# transformers marks with a block of its own what an assistant says; SmolLM3 has it.
GENERATION = (
    "{#- {% generation %} -#}\n"
    "{% if tools is none and documents is none %}{{ '{% generation %}\\n' }}{% endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- if message.role == 'assistant' %}\n"
    "        {%- generation -%}\n"
    "            {%- set turn = loop.index %}\n"
    "    {{ '<|im_start|>assistant ' ~ turn ~ '\\n' }}\n"
    "        {% generation %}\n"
    "  {{ message.content }}<|im_end|>\n"
    "        {% endgeneration %}\n"
    "        {%- endgeneration %}\n"
    "  {{ 'outer' if turn is defined else 'inner' }}\n"
    "    {% else %}\n"
    "<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n"
    "    {% endif %}\n"
    "{% endfor %}\n"
    "{% raw %}{% generation %}{% endraw %}\n"
    "{% if add_generation_prompt %}{%+ generation +%} <|im_start|>assistant\n"
    "{%endgeneration%}\n"
    "{% endif %}\n"
)
TEMPLATES = {
    "llama-2": (LLAMA2, "<s>", "</s>"),
    "llama-3": (LLAMA3, "<|begin_of_text|>", "<|eot_id|>"),
    "chatml": (CHATML, "<|endoftext|>", "<|im_end|>"),
    "mistral": (MISTRAL, "<s>", "</s>"),
    "generation": (GENERATION, "<|endoftext|>", "<|im_end|>"),
}

USER = {"role": "user", "content": "  What is 2 + 2?\n"}
SYSTEM = {"role": "system", "content": "Answer <briefly> & in \"one\" word."}
ANSWER = {"role": "assistant", "content": " Four. ½ 日本 "}
MORE = {"role": "user", "content": "And\nthree?"}
CONVERSATIONS = [
    [USER], [SYSTEM, USER], [USER, ANSWER, MORE], [SYSTEM, USER, ANSWER, MORE], [USER, ANSWER],
    # Roles that do not alternate: some templates refuse.
    [USER, MORE],
]


def render(template, bos, eos, messages, prompt):
    tokenizer = transformers.AutoTokenizer.from_pretrained(BASE)
    tokenizer.bos_token, tokenizer.eos_token = bos, eos
    try:
        text = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=prompt)
    except Exception as refusal:  # jinja2's TemplateError, by the template's raise_exception
        return {"error": str(refusal)}
    return {"text": text}


def chats():
    return [
        {
            "name": name, "template": template, "bos_token": bos, "eos_token": eos,
            "cases": [
                {"messages": messages, "add_generation_prompt": prompt,
                 **render(template, bos, eos, messages, prompt)}
                for messages in CONVERSATIONS for prompt in (False, True)
            ],
        }
        for name, (template, bos, eos) in TEMPLATES.items()
    ]


def tokens(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = []
    for string in STRINGS:
        ids = tokenizer(string, add_special_tokens=False)["input_ids"]
        found.append({
            "text": string,
            "ids": ids,
            "ids_with_special_tokens": tokenizer(string)["input_ids"],
            "decoded": tokenizer.decode(ids, clean_up_tokenization_spaces=False),
            "decoded_without_special_tokens": tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        })
    return found


def compute():
    return {
        "chat.json": chats(),
        "tokenizers.json": {name: tokens(folder) for name, folder in MODELS.items()},
    }


def write():
    for name, found in compute().items():
        text = json.dumps(found, indent=1, ensure_ascii=False)
        (ENGINE_GOLDEN / name).write_text(text + "\n")


def check():
    return [
        f"{name} differs from what transformers says now"
        for name, found in compute().items()
        if json.loads((ENGINE_GOLDEN / name).read_text()) != found
    ]

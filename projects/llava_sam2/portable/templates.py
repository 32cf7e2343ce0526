"""The markup of a dialogue: what stands round the words of user and assistant, one object for each template.

Everything that builds or reads a dialogue takes its markup from here, so that a further template is a further object in
``TEMPLATES`` and nothing else.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChatTemplate:
    """How turns are told apart.

    Attributes:
        name: ``template`` in config.json.
        instruction: a turn of the user up to where the answer begins; ``{input}`` stands for the words.
        terminator: ends every answer.
        terminator_is_token: the terminator is a special token of the tokenizer. Else it is ordinary text of several
            tokens, the first of which it may share with the end of the answer.
        separator: between an answer and the next turn; never supervised.
        stop_tokens: special tokens that also end an answer, beside the tokenizer's own end token.
    """

    name: str
    instruction: str
    terminator: str
    terminator_is_token: bool
    separator: str = '\n'
    stop_tokens: tuple[str, ...] = ()

    def ask(self, text: str) -> str:
        """One turn of the user, up to where the answer begins."""
        return self.instruction.format(input=text)

    def ended(self, answer: str) -> str:
        """An answer as it is supervised: its text and the terminator, to be encoded as one string."""
        return answer + self.terminator

    def turn(self, text: str, answer: str) -> str:
        """A question with its answer, as it stands before the next question of a dialogue."""
        return self.ask(text) + self.ended(answer) + self.separator

    def before_end(self, text: str) -> str:
        """What stands before the first terminator, all of it without one."""
        return text.partition(self.terminator)[0]


#: The newline form, which is the one that inference uses.
PHI3_CHAT = ChatTemplate(
    name='phi3_chat',
    instruction='<|user|>\n{input}<|end|>\n<|assistant|>\n',
    terminator='<|end|>',
    terminator_is_token=False,
)
#: The markup of Qwen's own chat models, without a system turn.
QWEN_CHAT = ChatTemplate(
    name='qwen_chat',
    instruction='<|im_start|>user\n{input}<|im_end|>\n<|im_start|>assistant\n',
    terminator='<|im_end|>',
    terminator_is_token=True,
    stop_tokens=('<|endoftext|>', ),
)
#: By name, all that there are.
TEMPLATES = {template.name: template for template in (PHI3_CHAT, QWEN_CHAT)}


def template_of(name: str) -> ChatTemplate:
    """The template that a config.json names.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in TEMPLATES:
        raise ValueError(f'template={name!r} is unknown, use one of {tuple(TEMPLATES)}')
    return TEMPLATES[name]

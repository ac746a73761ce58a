"""The prompts a person can pick: how to recall, how to remember."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mcp_types as types
from mcp.shared.exceptions import MCPError

Values = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt and how its text is made of its arguments."""

    described: types.Prompt
    text: Callable[[Values], str]

    def rendered(self, values: Values) -> types.GetPromptResult:
        """The messages for these values. Raises `MCPError` when a required one is missing."""
        for argument in self.described.arguments or []:
            if argument.required and not values.get(argument.name):
                message = f"{self.described.name} needs the argument {argument.name!r}"
                raise MCPError(types.INVALID_PARAMS, message)
        content = types.TextContent(type="text", text=self.text(values))
        return types.GetPromptResult(
            description=self.described.description,
            messages=[types.PromptMessage(role="user", content=content)],
        )


def _recall(values: Values) -> str:
    return (
        f"{values['question']}\n\n"
        "Before you answer, recall: call memory_search with the key terms of this question, and "
        "again with other words if little comes back. Use memory_get where a text is cut. Base "
        "the answer on what you find and name the ids of the memories you used. If memories "
        "disagree, trust the newer one and say so. If nothing relevant is stored, say that."
    )


def _remember(values: Values) -> str:
    source = values.get("source") or "conversation"
    return (
        f"Remember this:\n\n{values['text']}\n\n"
        "Split it into self-contained facts: full names, absolute dates, one fact each, nothing "
        "secret. For each, check with memory_is_novel: if it is novel add it with memory_add and "
        f"source {source!r}; if it corrects an existing memory change that with memory_update; "
        "if it says nothing new leave it. Then list what you stored, with ids."
    )


PROMPTS = (
    Prompt(
        types.Prompt(
            name="recall-before-answering",
            title="Recall before answering",
            description="Answer a question from what is stored, saying which memories were used.",
            arguments=[
                types.PromptArgument(name="question", description="What to answer.", required=True)
            ],
        ),
        _recall,
    ),
    Prompt(
        types.Prompt(
            name="remember-this",
            title="Remember this",
            description="Store something as self-contained memories, without duplicates.",
            arguments=[
                types.PromptArgument(name="text", description="What to remember.", required=True),
                types.PromptArgument(
                    name="source",
                    description="Where it comes from; `conversation` unless given.",
                    required=False,
                ),
            ],
        ),
        _remember,
    ),
)

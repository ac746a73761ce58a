"""English text to calibrate quantisation with, generated from templates.

The texts only need to drive every activation channel through its usual range: prose, notes,
questions, code, numbers and names, from a few words to about a hundred.
"""

from __future__ import annotations

import random
import re

_SLOTS: dict[str, tuple[str, ...]] = {
    "person": ("Maria", "my brother", "Dr. Okafor", "the new intern", "Yuki Tanaka", "Grandma",
               "the landlord", "Prof. Lindqvist", "our lawyer", "Ahmed", "the nurse", "Zoë"),
    "place": ("Lisbon", "the server room", "a small village in Bolivia", "Lake Baikal", "a clinic",
              "platform 9", "the warehouse in Rotterdam", "Nairobi", "the upper deck", "Tokyo"),
    "thing": ("a cast-iron pan", "the quarterly report", "an old violin", "the espresso machine",
              "the encryption key", "three boxes of tiles", "a telescope", "the blue bicycle",
              "the insurance policy", "a bag of fertiliser", "a prototype", "the PostgreSQL dump"),
    "topic": ("photosynthesis", "mortgage rates", "garbage collection in Java", "medieval trade",
              "the offside rule", "vector databases", "chronic back pain", "jazz harmony",
              "plate tectonics", "sourdough", "immigration law", "supersonic airflow over wings",
              "differential privacy", "bird migration", "supply chains", "Kubernetes networking"),
    "verb": ("repaired", "misplaced", "ordered", "painted", "returned", "photographed", "sold",
             "inherited", "dismantled", "recommended", "borrowed", "insured"),
    "feeling": ("delighted", "worried", "indifferent", "exhausted", "surprised", "grateful", "mad"),
    "adjective": ("cheap", "unreliable", "remarkable", "toxic", "elegant", "obsolete", "seasonal",
                  "asynchronous", "fragile", "illegal", "nonlinear", "delicious", "transparent"),
    "time": ("on 14 March 2021", "before dawn", "at 17:45", "every other Thursday", "in 1893",
             "last winter", "during the outage", "two weeks ago", "since the merger", "tomorrow"),
    "number": ("3", "0.05", "1,250", "42%", "$19.99", "minus seven", "six hundred", "2^31", "1e9"),
    "unit": ("kilograms", "milliseconds", "pages", "euros", "degrees Celsius", "pages per second",
             "litres", "hectares", "votes", "miles"),
    "code": ("getUserName()", "SELECT id FROM memories WHERE source = ?", "git rebase -i HEAD~3",
             "if x is None: return []", "https://example.org/api/v2/items?id=7", "/etc/hosts",
             "TypeError: cannot unpack non-iterable NoneType", "std::vector<float> scores;",
             "docker run -p 8900:8000 image:latest", "lr=3e-4, batch_size=32", "README.md"),
}  # fmt: skip

_TEMPLATES = (
    "{person} {verb} {thing} in {place} {time}.",
    "What is the relation between {topic} and {topic}?",
    "how do I explain {topic} to {person}",
    "{topic}",
    "{adjective} {topic}",
    "{person} prefers {adjective} food and dislikes {topic}.",
    "Remember: {thing} must be {verb} {time}, otherwise {person} will be {feeling}.",
    "The {adjective} model of {topic} predicts {number} {unit}, but we measured {number} {unit}.",
    "Decision: use `{code}` instead of `{code}`. Reason: it is {adjective}.",
    "{code}",
    "TODO({person}): call {code} {time}; see {code}",
    '"I was {feeling}," said {person}, "when I heard about {topic}."',
    "Meeting {time}: {person} reported {number} {unit}; {person} was {feeling} about {topic}.",
    "An introduction to {topic}, with {adjective} examples from {place} and {number} exercises.",
    "We study {adjective} methods for {topic}. Results from {place} show that {number} {unit} "
    "suffice, while earlier work on {topic} required {number} {unit}.",
    "Why is {thing} so {adjective}?",
    "Recipe: {number} {unit} of flour, {number} eggs; bake at {number} degrees {time}.",
    "- {topic}\n- {topic}\n- {thing}\n\n## {topic}\n{person} owns {thing}.",
    "Error {number} {time}: {code} failed in {place} after {number} {unit}",
    "Dear {person}, thank you for {thing}. I am {feeling} to say that {topic} is {adjective}.",
)


def calibration_texts(n_texts: int = 384, seed: int = 7) -> list[str]:
    """Varied English texts, the same ones at every call: single sentences and short passages."""
    rng = random.Random(seed)
    texts = []
    for i in range(n_texts):
        # Every third text is a passage, so that long positions are seen as well.
        n_sentences = rng.randint(2, 8) if i % 3 == 0 else 1
        texts.append(" ".join(_sentence(rng) for _ in range(n_sentences)))
    return texts


def _sentence(rng: random.Random) -> str:
    template = rng.choice(_TEMPLATES)
    return re.sub(r"\{(\w+)\}", lambda slot: rng.choice(_SLOTS[slot[1]]), template)

"""Transcripts that coding assistants keep: a memory a turn, the prompt and its last answer."""

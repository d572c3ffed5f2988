"""Answering questions from the state, within one consistent read."""

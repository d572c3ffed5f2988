"""Worlds: history that is sealed before anything of it is streamed."""

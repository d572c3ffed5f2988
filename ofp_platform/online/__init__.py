"""The online plane: projector, state, serving, health."""

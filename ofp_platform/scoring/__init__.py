"""Models in exact form: a score is a sum of integers, so it has the same bits everywhere, and so has each input's share of it."""

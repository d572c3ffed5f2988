"""Rows of training sets held against the vectors that were served."""

"""Bundles: made of a file and a trained model, published once, and put in force by steps that control says."""

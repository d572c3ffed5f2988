"""All parts of the loop at work on one run, each of them killed over and over."""

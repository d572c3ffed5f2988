"""The scenario runner: what a run stands on is checked and put on record before anything of it is admitted."""

"""Executors that are killed over and over in front of a provider that answers late, twice, wrong or never."""

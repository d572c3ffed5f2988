"""Commands that prepare and check an installation."""

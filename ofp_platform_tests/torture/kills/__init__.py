"""The kill loop: processes killed anywhere, nothing lost."""

"""What is asked of the offline plane, and how it is resolved into a plan."""

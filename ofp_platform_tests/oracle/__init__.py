"""The naive implementation that the plane is held against: written from docs/semantics, sharing no code with the kernel."""

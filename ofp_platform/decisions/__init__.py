"""An example of a decision service: asks the plane for features, decides by a declared rule, records what it decided."""

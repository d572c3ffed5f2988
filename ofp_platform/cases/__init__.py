"""Cases: what a person looks at, from its triggers to labels that the label store has."""

"""Records by reference: leaves of a Merkle tree whose heads are signed, and proofs from them."""

"""Vector indexes over one segment, and the policy that chooses them."""

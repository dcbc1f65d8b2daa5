"""Request bodies: parsed strictly, checked, and priced."""

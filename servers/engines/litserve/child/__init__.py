"""What runs in LitServe's processes."""

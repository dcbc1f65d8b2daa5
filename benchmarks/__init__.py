"""What serving costs, measured. Nothing imports this package."""

"""What calls a running platform, over its public HTTP interface only. Imports nothing of ours."""

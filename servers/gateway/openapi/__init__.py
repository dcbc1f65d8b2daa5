"""The OpenAPI document of the platform, and the page that shows it."""

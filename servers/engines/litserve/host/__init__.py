"""The worker host: LitAPIs run by Litport's own loop, each worker behind one framed Unix socket."""

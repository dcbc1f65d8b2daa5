"""A package of somebody else's that brings an engine and a route to Litport; tests install it beside Litport."""

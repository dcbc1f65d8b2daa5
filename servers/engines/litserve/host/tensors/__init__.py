"""Tensors of a LitAPI: what it declares, and how requests and answers of the Open Inference Protocol carry them."""

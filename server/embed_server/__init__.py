"""Vectors over HTTP: the OpenAI and Cohere embedding APIs in front of one bundle."""

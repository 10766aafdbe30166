"""Chorus beside other ways to serve the same three models: same requests, same answers, rounds interleaved."""

"""The models of the Triton repository; each runs in Triton's Python backend."""

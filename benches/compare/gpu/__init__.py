"""An ensemble of three members on one GPU under load, beside the same ensemble on this machine's processors."""

"""Checkpoint to bundle: graphs written as ONNX, engines built from them, vectors proven."""

"""The bundled base model, from scratch."""

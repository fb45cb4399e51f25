"""Finding episodes again: embedders, vectors, the graph, exact search."""

"""Pictures: reading and writing files, training sets, sources and training crops."""

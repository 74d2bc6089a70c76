"""Exported models: writing, loading, the full SavedModel and the stock one."""

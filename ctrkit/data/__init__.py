"""Data: generated or ingested, kept in a store, ordered and loaded in batches."""

"""Other people's files: rows of CSV, Parquet and NDJSON, what they mean, and the events and labels that they become."""

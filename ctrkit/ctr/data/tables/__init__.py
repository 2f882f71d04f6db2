"""Reads tables as people have them: finds the files, reads them, interprets their cells.

`table_files` finds the files; `text` and `text_records` turn bytes into records; `layout` finds
header and delimiter; `columns` finds the requested columns; `reading` puts their cells into DuckDB.
`times`, `ids` and `labels` decide what cells mean, and `meaning` applies them to whole columns.
`doubts` reports what looks odd, and `counting` accounts for each row.
"""

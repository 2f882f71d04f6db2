"""Reads tables as people have them: finds the files, reads them, interprets their cells.

`table_files` finds the files, `text` and `text_records` turn bytes into records, `layout` finds
header and delimiter, `columns` the columns asked for, `reading` puts their cells into DuckDB;
`times`, `ids` and `labels` decide what the cells mean, `meaning` asks them about whole columns,
`doubts` says what looks odd, and `counting` accounts for each row.
"""

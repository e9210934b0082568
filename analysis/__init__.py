"""Records -> tidy frame -> statistics -> tables, figures, report. Never imports torch."""

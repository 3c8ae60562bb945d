"""What people read: results, statistics, figures, tables, the report, the ledger."""

"""The layer table as plain data: rows and lanes of the graph, columns, filters, what stands in a cell."""

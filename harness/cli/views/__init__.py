"""Terminal views and JSON fields of results, named after what they show; they compute nothing."""

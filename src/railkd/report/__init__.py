"""Records of runs into one page: records -> statistics -> one plain dict -> HTML, Markdown, CSV. Without torch."""

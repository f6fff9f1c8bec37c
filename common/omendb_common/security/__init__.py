"""Who may speak to whom: TLS between processes, and the certificates of a development cluster."""

"""Requests nobody should send, for the faces of a router: whatever comes, a face answers with an error of the table."""

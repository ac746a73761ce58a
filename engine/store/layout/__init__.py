"""How everything lies in the database file."""

"""What the marks in a text say of it: fields, headings, lists and links."""

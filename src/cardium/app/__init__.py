"""`cardium app`: a page in the browser that answers a person's files with the champions' answers; nothing is kept."""

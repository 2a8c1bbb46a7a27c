"""What people read outside of the pages: sheets to print."""

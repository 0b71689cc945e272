"""What a finished run tells people: one offline page, and one table for the terminal."""

"""Tables, pictures and plots, of what they are handed: nothing here computes a result, or imports what does."""
